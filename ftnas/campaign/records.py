"""Results as an append-only file: a header, then one line a unit, each with a checksum.

A kill can only cut the last line, which the next start cuts off and computes again. Every other damage is an error,
and what stands before it stays readable. Lines are plain JSON, so ``pandas.read_json(path, lines=True)`` reads them.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ftnas.errors import CampaignError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1

# Plain data of one unit. ``unit`` names it: no two lines of one file may have the same.
Content = Mapping[str, Any]

_MARK = b',"crc32":"'
_END = b'"}\n'


@dataclass(frozen=True, slots=True)
class Records:
    """What a file holds.

    Attributes:
        header: what the campaign is; ``None`` where a kill came before it was written.
        units: the whole lines, in the order of the file.
        size: bytes that they and the header take.
        problem: what is wrong with the line after them, as an error would say it; nothing for a line cut by a kill.
    """

    header: Content | None
    units: tuple[Content, ...]
    size: int
    problem: str | None = None


def read_records(path: Path) -> Records:
    """Return the whole lines of ``path`` up to the first that is damaged; ``problem`` says whether there is one.

    Raises:
        CampaignError: the file cannot be read at all.
    """
    lines: list[Content] = []
    names: set[str] = set()
    size, problem = 0, None
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    content = _decoded(line, names if number > 1 else None)
                except ValueError as error:
                    problem = f"{path}, line {number}: {error}; move the file away, or delete it from that line on"
                    break
                lines.append(content)
                size += len(line)
    except OSError as error:
        raise CampaignError(f"{path}: cannot be read ({error.strerror})") from None
    return Records(lines[0] if lines else None, tuple(lines[1:]), size, problem)


class RecordFile:
    """A file of results that grows.

    Attributes:
        known: what it holds, by the name of the unit.
    """

    def __init__(self, known: Sequence[Content], file: BinaryIO | None) -> None:
        self.known = {str(content["unit"]): content for content in known}
        self._file = file

    def append(self, contents: Sequence[Content]) -> None:
        """Write the lines of these units, and return when the disk has them."""
        self.known |= {str(content["unit"]): content for content in contents}
        self._write(contents)

    def begin(self, header: Content) -> None:
        """Write the first line."""
        self._write([header])

    def _write(self, contents: Sequence[Content]) -> None:
        if self._file is not None and contents:
            self._file.write(b"".join(map(encoded, contents)))
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def open_records(path: Path | None, header: Content) -> Iterator[RecordFile]:
    """Open ``path``, new or to go on after a kill; without a path nothing is kept.

    Raises:
        CampaignError: the file is damaged, belongs to another campaign or cannot be written.
    """
    if path is None:
        yield RecordFile((), None)
        return
    new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise CampaignError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    with file:
        _lock(file, path)
        there = Records(None, (), 0) if new else read_records(path)
        check_header(there, header, path)
        file.truncate(there.size)
        records = RecordFile(there.units, file)
        if there.header is None:
            records.begin(header)
        yield records


def _lock(file: BinaryIO, path: Path) -> None:
    """Refuse to write what another process is writing: their lines would mix. The lock ends with the process."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CampaignError(f"{path}: another process is writing it") from None
    except OSError:  # a file system without locks, as some networks have
        return


def check_header(there: Records, header: Content, path: Path) -> None:
    """Refuse records that are damaged or of another campaign than ``header`` says.

    Raises:
        CampaignError: names file, and line or differing key.
    """
    if there.problem is not None:
        raise CampaignError(there.problem)
    if there.header is None:
        if path.exists() and not encoded(header).startswith(path.read_bytes()):
            raise CampaignError(f"{path}: holds something else than results of this campaign; choose another folder")
        return
    plain = json.loads(json.dumps(header))
    for key, old, new in _differences(there.header, plain):
        raise CampaignError(
            f"{path}: holds another campaign ({key} is {_short(old)} there, {_short(new)} now); choose another folder"
        )


def encoded(content: Content) -> bytes:
    """Return the line of ``content``: JSON on one line, whose last key is the CRC-32 of the rest."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return body[:-1] + _MARK + f"{zlib.crc32(body):08x}".encode() + _END


def _decoded(line: bytes, names: set[str] | None) -> Content:
    """Return the content of ``line``; ``names`` are those of the units before it, ``None`` for the header."""
    body, mark, checksum = line.rpartition(_MARK)
    body += b"}"
    if not mark or not checksum.endswith(_END):
        raise ValueError("is no result of a campaign (it has no checksum)")
    if checksum != f"{zlib.crc32(body):08x}".encode() + _END:
        raise ValueError("is damaged (its checksum is another)")
    content: Content = json.loads(body)
    if names is None:
        if content.get("schema") != SCHEMA:
            raise ValueError(f"is no header of schema {SCHEMA}")
        return content
    name = str(content.get("unit"))
    if name in names:
        raise ValueError(f"repeats unit {name}")
    names.add(name)
    return content


def _differences(there: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value there, value now) of what differs, inner keys joined by dots."""
    if not (isinstance(there, dict) and isinstance(now, dict)):
        if there != now:
            yield path, there, now
        return
    for key in [*now, *(key for key in there if key not in now)]:
        yield from _differences(there.get(key), now.get(key), f"{path}.{key}" if path else key)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
