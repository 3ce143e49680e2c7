"""A list of checksums in a folder of results, in the format of ``sha256sum``; what is altered later is noticed.

``checksums.sha256`` stands in the folder of a run and has a line for each file in it and below. A line is added before
its file gets its name, and older lines of that file are removed after, so a crash in between leaves one line too many:
a file is whole if it has any of its lines. A file without a line is taken as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ftnas.locking import waiting_for_lock

LIST, LIST_LOCK = "checksums.sha256", ".checksums.lock"
_HEAD = "# sha256sum --check checksums.sha256\n"
_DEPTH = 4  # folders above a file in which its list is looked for: a run has files two folders down
_LENGTH = 64


class Damaged(ValueError):
    """A file has none of the checksums that are listed for it."""


def begin_list(folder: Path) -> None:
    """Begin a list in ``folder``, unless there is one there or above."""
    if _home(folder / LIST) is not None:
        return
    with (folder / LIST).open("a", encoding="utf-8") as file:
        if not file.tell():
            file.write(_HEAD)


def read_whole(path: Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        Damaged: it is not what was written.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    home = _home(path)
    if home is None or _fits(home, path, content):
        return content
    with waiting_for_lock(home / LIST_LOCK):  # another process may have been at it just now
        content = path.read_bytes()
        if _fits(home, path, content):
            return content
    raise Damaged(f"its checksum is another than in {home / LIST}")


@contextmanager
def listing(parts: Mapping[Path, Path]) -> Iterator[None]:
    """List the checksum of each part, by the path to which the block moves it; all are in one folder."""
    home = _home(next(iter(parts)))
    if home is None:
        yield
        return
    new = {_name(home, path): _digest(part.read_bytes()) for path, part in parts.items()}
    with waiting_for_lock(home / LIST_LOCK):
        before = _lines(home)
        rewritten = any(name in new for _, name in before)
        _append(home, new, durable=rewritten)
        yield
        if rewritten:
            _write(home, [*(line for line in before if line[1] not in new), *_lines_of(new)])


def unlist(path: Path) -> None:
    """Take ``path``, which is gone, off its list."""
    home = _home(path)
    if home is None:
        return
    with waiting_for_lock(home / LIST_LOCK):
        lines, name = _lines(home), _name(home, path)
        if any(line[1] == name for line in lines):
            _write(home, [line for line in lines if line[1] != name])


def _home(path: Path) -> Path | None:
    """Return the nearest folder above ``path`` that holds a list."""
    above = path.absolute().parents[:_DEPTH]
    return next((folder for folder in above if (folder / LIST).exists()), None)


def _name(home: Path, path: Path) -> str:
    return path.absolute().relative_to(home).as_posix()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fits(home: Path, path: Path, content: bytes) -> bool:
    name = _name(home, path)
    listed = {digest for digest, other in _lines(home) if other == name}
    return not listed or _digest(content) in listed


def _lines(home: Path) -> list[tuple[str, str]]:
    """Return (digest, name) of each whole line."""
    try:
        text = (home / LIST).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    split = (line.partition("  ") for line in text.split("\n")[:-1] if not line.startswith("#"))
    return [(digest, name) for digest, _, name in split if name and len(digest) == _LENGTH]


def _lines_of(new: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(digest, name) for name, digest in new.items()]


def _text(lines: list[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for digest, name in lines)


def _append(home: Path, new: Mapping[str, str], *, durable: bool) -> None:
    """Add lines; ``durable`` where a power cut must not lose them before the file that they are for."""
    with (home / LIST).open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        cut = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a line that a crash has cut
        file.write(cut + _text(_lines_of(new)).encode())
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _write(home: Path, lines: list[tuple[str, str]]) -> None:
    part = home / f".{LIST}.part"
    part.write_text(_HEAD + _text(lines), encoding="utf-8")
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(home / LIST)
