"""CIFAR-10 as its authors publish it: ``cifar-10-batches-py``, a folder of six pickles, or its ``.tar.gz``.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009). The archive is read in memory,
never extracted.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ftnas.data.dataset import Images, Labels, Pixels
from ftnas.data.restricted_pickle import read_mapping
from ftnas.errors import DataError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
BATCHES = (*TRAIN_BATCHES, TEST_BATCH)
IMAGE_SHAPE = (3, 32, 32)
VALUES = 3 * 32 * 32
CLASSES = 10
LARGEST_BATCH = 64 * 2**20  # bytes; the published ones hold 31 MB
LARGEST_ARCHIVE = 512 * 2**20  # bytes when unpacked; the published one holds 186 MB

Batch = tuple[Images, Labels]


def read_cifar10(directory: Path | None) -> Pixels:
    """Read CIFAR-10: training batches 1 to 5 in their order, and the test batch.

    Args:
        directory: the folder of batches, its parent, the archive, or the folder that holds the archive.

    Raises:
        DataError: a batch is missing, damaged, too large, or holds wrong shapes or labels.
    """
    batches = _read_batches(_located(directory))
    train = _joined([batches[name] for name in TRAIN_BATCHES])
    return Pixels(*train, *_joined([batches[TEST_BATCH]]), CLASSES)


def _located(directory: Path | None) -> Path:
    """Return the folder of batches or the archive that ``directory`` stands for."""
    if directory is None:
        raise DataError(f"cifar10: needs a directory (--data-dir DIR) that holds {FOLDER} or {ARCHIVE}")
    if not directory.exists():
        raise DataError(f"{directory}: is missing; it should hold {FOLDER} or {ARCHIVE}")
    if directory.is_file() or directory.name == FOLDER or any((directory / b).exists() for b in BATCHES):
        return directory
    for inside in (directory / FOLDER, directory / ARCHIVE):
        if inside.exists():
            return inside
    raise DataError(f"{directory}: holds neither {FOLDER} nor {ARCHIVE}")


def _joined(batches: list[Batch]) -> Batch:
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _read_batches(place: Path) -> dict[str, Batch]:
    return _read_archive(place) if place.is_file() else _read_folder(place)


def _read_folder(folder: Path) -> dict[str, Batch]:
    return {name: _batch(_content(folder / name), source=str(folder / name)) for name in BATCHES}


def _content(path: Path) -> bytes:
    try:
        _check_size(path.stat().st_size, source=str(path))
        if not path.is_file():
            raise DataError(f"{path}: is not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; CIFAR-10 needs {', '.join(BATCHES)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _read_archive(path: Path) -> dict[str, Batch]:
    try:
        with _LimitedGzip(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            batches = _read_members(archive, path)
            while unpacked.read(2**20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, ValueError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: is truncated or not a .tar.gz archive ({reason})") from None
    for name in BATCHES:
        if name not in batches:
            raise DataError(f"{path}: {FOLDER}/{name} is missing from the archive")
    return batches


def _read_members(archive: tarfile.TarFile, path: Path) -> dict[str, Batch]:
    """Read the six batches as they come by; other members are passed over."""
    batches: dict[str, Batch] = {}
    for member in archive:
        *_, folder, name = ("", *PurePosixPath(member.name).parts)
        if not member.isreg() or folder != FOLDER or name not in BATCHES:
            continue
        source = f"{path}: {FOLDER}/{name}"
        _check_size(member.size, source=source)
        opened = archive.extractfile(member)
        if opened is not None:
            batches[name] = _batch(opened.read(), source=source)
    return batches


class _LimitedGzip(gzip.GzipFile):
    """A gzip file that stops where a small, hostile archive would unpack without end."""

    left = LARGEST_ARCHIVE

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` unpacked bytes."""
        content = super().read(size)
        self.left -= len(content)
        if self.left < 0:
            limit = LARGEST_ARCHIVE >> 20
            raise DataError(f"{self.name}: unpacks to more than {limit} MiB, which CIFAR-10 does not")
        return content


def _check_size(size: int, *, source: str) -> None:
    if size > LARGEST_BATCH:
        raise DataError(f"{source}: holds {size} bytes, a CIFAR-10 batch at most {LARGEST_BATCH}")


def _batch(content: bytes, *, source: str) -> Batch:
    """Return images uint8 ``[rows, 3, 32, 32]`` and labels ``[rows]`` of one pickled batch."""
    mapping = read_mapping(content, source=source)
    for key in ("data", "labels"):
        if key not in mapping:
            raise DataError(f"{source}: key {key!r} is missing; found {', '.join(map(repr, mapping))[:120]}")
    images = _images(mapping["data"], source=source)
    labels = _labels(mapping["labels"], source=source)
    if len(labels) != len(images):
        raise DataError(f"{source}: {len(labels)} labels for {len(images)} images")
    return images, labels


def _images(data: Any, *, source: str) -> Images:
    if not isinstance(data, np.ndarray):
        raise DataError(f"{source}: 'data' must be a uint8 array, found {type(data).__name__}")
    if data.dtype != np.uint8 or data.shape[1:] != (VALUES,) or len(data) == 0:
        found = f"{data.dtype} {list(data.shape)}"
        raise DataError(f"{source}: 'data' must be a uint8 array [rows, {VALUES}], found {found}")
    images: Images = data.reshape(-1, *IMAGE_SHAPE)
    return images


def _labels(labels: Any, *, source: str) -> Labels:
    listed = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(listed, list):
        raise DataError(f"{source}: 'labels' must be a list, found {type(labels).__name__}")
    for label in listed:
        if type(label) is not int or not 0 <= label < CLASSES:
            raise DataError(f"{source}: labels must be 0..{CLASSES - 1}, found {_short(label)}")
    return np.array(listed, dtype=np.int64)


def _short(label: Any) -> str:
    return str(label) if type(label) is int and label.bit_length() < 64 else type(label).__name__
