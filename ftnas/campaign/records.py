"""Results as an append-only file: a header, then one line a unit, each with a checksum.

A kill can only cut the last line, which the next start cuts off and computes again. Every other damage is an error,
and what stands before it stays readable. Lines are plain JSON, so ``pandas.read_json(path, lines=True)`` reads them.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ftnas.errors import CampaignError, RunError
from ftnas.holding import list_checksums
from ftnas.locking import holding_lock

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

    def __init__(self, known: Sequence[Content], file: FileIO | None) -> None:
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
            try:
                left = b"".join(map(encoded, contents))
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                raise CampaignError(
                    f"{self._file.name}: cannot be written ({error.strerror}); whole lines stay, and the same command "
                    "goes on from them"
                ) from None


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
        list_checksums(path.parent)
        file = path.open("ab", buffering=0)  # what fails to be written must not be tried again when the file is closed
    except (RunError, OSError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise CampaignError(f"{path}: cannot be written ({words}); choose another place") from None
    with file, _held(path):
        there = Records(None, (), 0) if new else read_records(path)
        check_header(there, header, path)
        file.truncate(there.size)
        records = RecordFile(there.units, file)
        if there.header is None:
            records.begin(header)
        yield records


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Refuse to write what another process is writing: their lines would mix. The lock ends with the process."""
    with ExitStack() as stack:
        try:
            stack.enter_context(holding_lock(path.with_name(f".{path.name}.lock"), of=path))
        except RunError as error:
            raise CampaignError(str(error)) from None
        yield


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


def checked(line: bytes) -> Content | None:
    """Return the content of a ``line`` that ``encoded`` made; ``None`` where it has no checksum.

    Raises:
        ValueError: it has another checksum, or holds something else than a JSON object.
    """
    body, mark, checksum = line.rpartition(_MARK)
    body += b"}"
    if not mark or not checksum.endswith(_END):
        return None
    if checksum != f"{zlib.crc32(body):08x}".encode() + _END:
        raise ValueError("is damaged (its checksum is another)")
    try:
        content: Content = json.loads(body)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("is no JSON object")
    return content


def _decoded(line: bytes, names: set[str] | None) -> Content:
    """Return the content of ``line``; ``names`` are those of the units before it, ``None`` for the header."""
    content = checked(line)
    if content is None:
        raise ValueError("is no result of a campaign (it has no checksum)")
    if names is None:
        if content.get("schema") != SCHEMA:
            raise ValueError(f"is no header of schema {SCHEMA}")
        return content
    name = content.get("unit")
    if not isinstance(name, str):
        raise ValueError("names no unit")
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
