"""Files that are whole or absent: each is written beside its place and moved there. Damage is noticed when read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftnas.checksums import Damaged, listing, read_whole, unlist
from ftnas.errors import RunError

Content = TypeVar("Content")

DIGEST = "sha256"  # of a safetensors file: the last key of its metadata, its value zeros while it is computed
_NO_DIGEST = b"0" * 64
_BEFORE_DIGEST = f'{DIGEST}\\": \\"'.encode()  # JSON within JSON
# What ends metadata with a digest, whose name may be what is damaged.
_SOME_DIGEST = re.compile(rb'[0-9a-f]{64}\\"}"')


@contextmanager
def replacing(path: Path, *, previous: Path | None = None, listed: bool = True) -> Iterator[Path]:
    """Yield a temporary path in ``path``'s folder that takes its place when the block ends without an error.

    In a folder with a list of checksums (see ``checksums``) its own is put there.

    Args:
        path: to be written.
        previous: where what was at ``path`` goes, in the same folder.
        listed: whether its checksum is listed; what comes and goes and holds its own needs none.

    Raises:
        RunError: the folder cannot be made, or the file not be written; what was at ``path`` is there still.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be made ({error.strerror}); choose another place") from None
    # Always the same name, so that what a kill leaves behind is written over when the run goes on.
    part = path.with_name(f".{path.name}.part")
    _remove(part)  # it could be a link to somewhere else, which would be followed
    try:
        with writing(path):
            yield part
            part.chmod(0o644)
            with part.open("rb") as written:
                os.fsync(written.fileno())
            earlier = previous if previous is not None and path.exists() else None
            moved = {path: part} if earlier is None else {path: part, earlier: path}
            with listing(moved) if listed else nullcontext():
                if earlier is not None:
                    path.replace(earlier)
                part.replace(path)
    finally:
        _remove(part)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name ``path`` where the block cannot write it.

    Raises:
        RunError: the disk is full, the folder is read-only, a limit is reached.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error.strerror) from None
    except SafetensorError as error:
        raise cannot_write(path, str(error)) from None


def cannot_write(path: Path, reason: str | None) -> RunError:
    """Return the error that says so, and what to do."""
    return RunError(
        f"{path}: cannot be written ({reason}); what was there is untouched, and the same command goes on from it"
    )


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # of a folder that is read-only by now, where it is in nobody's way
        return


def previous_of(path: Path) -> Path:
    """Return where the file before the last is kept, of what is written again and again at ``path``."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def has_latest(path: Path) -> bool:
    """Return whether there is anything to go on from at ``path``."""
    return path.exists() or previous_of(path).exists()


def read_latest(path: Path, read: Callable[[Path], Content]) -> Content:
    """Return what ``read`` makes of the last good file at ``path``.

    Where the last is damaged and the one before it is there, that is warned of, the damaged file gets a name that says
    so, and the one before it is read.

    Raises:
        RunError: neither is whole; both stay where they are.
    """
    before = previous_of(path)
    if not before.exists():
        return read(path)
    if not path.exists():  # a crash came between the two moves of a save
        return read(before)
    try:
        return read(path)
    except RunError as error:
        found, damage = read(before), str(error).partition(";")[0]
    kept = set_aside(path)
    warnings.warn(f"{damage}; it is kept as {kept.name}, and the one before it is used", stacklevel=2)
    return found


def set_aside(path: Path) -> Path:
    """Move a damaged file to a name that says so and that nothing reads, and return that.

    Raises:
        RunError: it cannot be moved.
    """
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with writing(kept):
        path.rename(kept)
    return kept


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain data to ``path`` as JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def csv_text(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a table as CSV, a line for each of ``rows`` below that of ``head``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def remove(path: Path) -> None:
    """Remove a file that may be gone already, and its checksum."""
    path.unlink(missing_ok=True)
    unlist(path)


def read_json(path: Path) -> Any:
    """Read plain data.

    Raises:
        RunError: the file is missing, altered since it was written, or not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is not whole JSON ({error}); delete it to compute it again") from None


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        RunError: it is missing, or altered since it was written.
    """
    _demand_file(path)
    try:
        return read_whole(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except Damaged as error:
        raise RunError(f"{path}: is damaged ({error}); delete it to compute it again, or bring a copy back") from None


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    *,
    previous: Path | None = None,
) -> None:
    """Write ``tensors`` to ``path`` as safetensors; ``metadata`` (plain data) and a digest travel in its header.

    What was at ``path`` goes to ``previous``, where that is given.
    """
    whole = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    header = json.dumps({**(metadata or {}), DIGEST: _NO_DIGEST.decode()})
    with replacing(path, previous=previous, listed=previous is None) as part:
        save_file(whole, part, metadata={"ftnas": header})
        content = part.read_bytes()
        with part.open("r+b") as file:
            file.seek(content.index(_BEFORE_DIGEST + _NO_DIGEST) + len(_BEFORE_DIGEST))
            file.write(hashlib.sha256(content).hexdigest().encode())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the metadata that ``write_tensors`` wrote.

    Raises:
        RunError: the file is missing, truncated, altered or no safetensors file.
    """
    _demand_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("ftnas", "{}"))
            _check_digest(path, metadata)
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (OSError, RecursionError, SafetensorError, ValueError) as error:
        raise RunError(f"{path}: is not a whole safetensors file ({error}); delete it to compute it again") from None


def _demand_file(path: Path) -> None:
    """Refuse a pipe or a device, from which a reader would never come back.

    Raises:
        RunError: ``path`` is there, and neither a file nor a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise RunError(f"{path}: cannot be read (it is not a file)")


def _check_digest(path: Path, metadata: Any) -> None:
    """Take the digest out of ``metadata`` and compare; a file without one, as older versions wrote, is taken as it is.

    Raises:
        ValueError: the file has another digest.
    """
    said = metadata.pop(DIGEST, None) if isinstance(metadata, dict) else None
    content = path.read_bytes()
    if said is None and _SOME_DIGEST.search(content, 0, 8 + int.from_bytes(content[:8], "little")) is None:
        return
    blank = content.replace(_BEFORE_DIGEST + str(said).encode(), _BEFORE_DIGEST + _NO_DIGEST, 1)
    if hashlib.sha256(blank).hexdigest() != said:
        raise ValueError("its checksum is another")
