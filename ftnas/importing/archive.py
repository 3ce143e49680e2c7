"""The archive that ``torch.export.save`` writes, read without unpickling anything.

``torch.export.load`` would unpickle: sample inputs always, tensors and objects wherever the file says so. So it is not
used. The program itself is JSON and its weights are raw numbers, and only those are read here; what the file holds only
as a pickle is refused.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftnas.errors import ModelError
from ftnas.importing.mistakes import mistake, said

SCHEMA_MAJOR = 8  # of the program's JSON, as torch 2.13 writes it
ARCHIVE_VERSION = "0"

# torch's numbers for its types, in JSON.
TYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Archive:
    """A program as plain data, and its tensors by the names that its signature uses."""

    program: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_archive(file: Path) -> Archive:
    """Return what ``file`` holds.

    Raises:
        ModelError: it is no such archive, damaged, of another version, or would have to be unpickled.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = _Records(file, archive)
            records.check_versions()
            return _read(records)
    except OSError as error:
        raise mistake(file, f"cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, EOFError, LookupError, NotImplementedError, RuntimeError, ValueError, struct.error):
        raise mistake(file, "is truncated or not a file of torch.export.save") from None


class _Records:
    """The records of an archive, below the folder that all of them are in."""

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        self.file, self.archive = file, archive
        self.names = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        # Torch writes each record once; records that lie over each other, or are read again and again, fill the memory.
        self.left = 2 * file.stat().st_size

    def bytes(self, name: str) -> bytes:
        info = self.names.get(name)
        if info is None:
            raise mistake(self.file, f"is truncated or not a file of torch.export.save (it has no {name})")
        # Torch stores; what is packed could be a small file that fills the memory.
        if info.compress_type != zipfile.ZIP_STORED:
            raise mistake(self.file, f"{name} is compressed, which torch.export.save never does")
        self.left -= info.file_size
        if self.left < 0:
            raise mistake(self.file, "is damaged (its records hold more than the file)")
        return self.archive.read(info)

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.bytes(name))
        except (ValueError, RecursionError) as error:
            raise mistake(self.file, f"{name} is not JSON ({error})") from None

    def check_versions(self) -> None:
        if self.bytes("archive_format") != b"pt2" or self.bytes("archive_version") != ARCHIVE_VERSION.encode():
            version = self.bytes("archive_version")[:20].decode(errors="replace")
            raise mistake(self.file, f"is an archive of version {version!r}; ftnas reads {ARCHIVE_VERSION!r}")
        if "byteorder" in self.names and self.bytes("byteorder") != b"little":
            raise mistake(self.file, "was written on a big-endian machine; ftnas reads little-endian files")


def _read(records: _Records) -> Archive:
    models = [name for name in records.names if name.startswith("models/") and name.endswith(".json")]
    if len(models) != 1:
        raise mistake(records.file, f"holds {len(models)} programs; allowed is one")
    program = records.json(models[0])
    name = models[0].removeprefix("models/").removesuffix(".json")
    try:
        _check_schema(records.file, program)
        tensors = {}
        for folder in ("weights", "constants"):
            config = records.json(f"data/{folder}/{name}_{folder}_config.json")["config"]
            tensors.update({key: _tensor(records, folder, key, entry) for key, entry in config.items()})
        return Archive(program, tensors)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(records.file, error) from None


def damaged(file: Path, error: Exception) -> ModelError:
    """Return the error of a file in which something is not as torch writes it."""
    return mistake(file, f"is damaged, or not as torch 2.13 writes it ({said(error)})")


def _check_schema(file: Path, program: Mapping[str, Any]) -> None:
    major = program["schema_version"]["major"]
    if major != SCHEMA_MAJOR:
        writer = program.get("torch_version", "another torch")
        age = "newer" if major > SCHEMA_MAJOR else "older"
        raise mistake(
            file, f"has the {age} schema {major} (written by torch {writer}); ftnas reads schema {SCHEMA_MAJOR}"
        )


def _tensor(records: _Records, folder: str, key: str, entry: Mapping[str, Any]) -> Tensor:
    if entry["use_pickle"]:
        raise mistake(
            records.file, f"{key} is stored as a pickle, and ftnas unpickles nothing; allowed are plain tensors"
        )
    meta = entry["tensor_meta"]
    if meta["dtype"] not in TYPES:
        raise mistake(records.file, f"{key} has a type that is not read (number {meta['dtype']} of torch)")
    content = bytearray(records.bytes(f"data/{folder}/{entry['path_name']}"))
    dtype = TYPES[meta["dtype"]]
    flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    sizes, strides = _integers(meta["sizes"]), _integers(meta["strides"])
    if min(sizes, default=1) < 0 or math.prod(sizes) > flat.numel():  # strides of 0 would repeat it without end
        raise ValueError(f"{key} of sizes {sizes} is made of {flat.numel()} numbers")
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])).clone()


def _integers(entries: list[Mapping[str, int]]) -> list[int]:
    return [int(entry["as_int"]) for entry in entries]
