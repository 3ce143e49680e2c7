"""Files that survive a kill: an Optuna journal that grows by whole trials, and lines of JSON.

Both hold checksums. What a kill cuts short is cut off; other damage is warned of, the file is kept under a name that
says so, and the study goes on from what stands before the damage.
"""

from __future__ import annotations

import json
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

from ftnas.campaign.records import checked, encoded
from ftnas.checksums import Damaged
from ftnas.errors import RunError
from ftnas.files import replacing, set_aside, writing

MARK = "finished trials"
"""The study attribute that is written last in every commit."""

CHECKSUM = "crc32"
"""The study attribute behind it: of the file up to its own line, so that each commit vouches for all before it."""

LOCK_SECONDS = 3
_VOUCHER = re.compile(rb'"%s":"([0-9a-f]{8})"' % CHECKSUM.encode())


class TrialJournal(BaseJournalBackend):
    """An Optuna journal file to which nothing is written before ``commit``, and then all at once.

    So the file never holds a part of a trial: after a kill the study is as it was when the last trial ended, and
    the next proposal sees what it would have seen without the kill. One write to disk a trial instead of one a
    parameter also makes it several times faster. A dashboard may read the file meanwhile; one study may write it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        _cut_to_whole_commits(path)
        self._crc = zlib.crc32(path.read_bytes()) if path.exists() else 0
        # Not the default lock, a symbolic link: left behind by a kill, it can be waited for without end.
        lock = JournalFileOpenLock(str(path), grace_period=LOCK_SECONDS)
        self._file = JournalFileBackend(str(path), lock_obj=lock)
        self._stored = sum(1 for _ in self._file.read_logs(0))
        self._pending: list[dict[str, Any]] = []
        # Of the file's end, what the study has not read yet: to find it there, the file would be read from its start.
        self._unread: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the operations from that number on, those not yet committed included."""
        unread = self._stored - len(self._unread)
        if log_number_from < unread:
            yield from self._file.read_logs(log_number_from)
        else:
            yield from self._unread[log_number_from - unread :]
        yield from self._pending[max(0, log_number_from - self._stored) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keep ``logs`` in memory, as the file would give them back."""
        self._pending.extend(json.loads(json.dumps(logs)))

    def commit(self) -> None:
        """Write all that was appended since the last commit, and its checksum.

        Raises:
            RunError: it cannot be written; the next start cuts off what was.
        """
        if not self._pending:
            return
        crc = zlib.crc32(_as_written(self._pending), self._crc)
        # Another operation like the last one, which sets the mark.
        voucher = {**self._pending[-1], "user_attr": {CHECKSUM: f"{crc:08x}"}}
        with writing(self._path):
            self._file.append_logs([*self._pending, voucher])
        self._crc = zlib.crc32(_as_written([voucher]), crc)
        self._stored += len(self._pending) + 1
        self._pending, self._unread = [], [voucher]


def _as_written(logs: list[dict[str, Any]]) -> bytes:
    """Return the lines of ``logs`` as Optuna writes them."""
    return b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)


class JsonLines:
    """A file of JSON objects, one a line, each with a checksum; an unfinished last line is dropped when it is opened.

    Raises:
        RunError: a line is not a JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.rows: list[dict[str, Any]] = []
        end = 0
        for number, line in enumerate(whole.splitlines(keepends=True), start=1):
            try:
                self.rows.append(_row(path, number, line))
            except Damaged as damage:
                _go_on_from(path, content[:end], f"line {number} {damage}")
                return
            end += len(line)
        if end < len(content):
            os.truncate(path, end)

    def append(self, row: dict[str, Any]) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            RunError: it cannot be written; the next start cuts off what was.
        """
        with writing(self.path), self.path.open("ab") as file:
            file.write(encoded(row))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Return the content of a line; one without a checksum, as older versions wrote, is taken as it is."""
    try:
        content = checked(line)
    except ValueError as error:
        raise Damaged(str(error)) from None
    try:
        row = json.loads(line) if content is None else content
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise RunError(f"{path}: line {number} is not a JSON object; choose another run folder")
    return row


def _cut_to_whole_commits(path: Path) -> None:
    """Shorten the file to end with its last whole commit; where one is damaged, go on from those before it."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = crc = at = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        voucher = _VOUCHER.search(line)
        if voucher and int(voucher[1], 16) != crc:
            return _go_on_from(path, content[:end], f"the checksum in line {number} does not fit what is before it")
        if voucher and line.endswith(b"\n") and not _is_object(line):  # no later checksum says where to go on from
            return _go_on_from(path, content[:end], f"line {number} is damaged")
        crc, at = zlib.crc32(line, crc), at + len(line)
        if voucher and line.endswith(b"\n"):
            end = at
    end = end or _end_of_older(content)
    if end < len(content):
        os.truncate(path, end)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _end_of_older(content: bytes) -> int:
    """Return where the last whole commit ends in a file without checksums; one without marks is left alone."""
    end = content.rfind(b"\n") + 1
    found = content.rfind(f'"{MARK}"'.encode(), 0, end)
    return content.find(b"\n", found) + 1 if found >= 0 else len(content)


def _go_on_from(path: Path, good: bytes, damage: str) -> None:
    """Put a damaged file aside and leave what stands before the damage in its place."""
    kept = set_aside(path)
    if good:
        with replacing(path) as part:
            part.write_bytes(good)
    warnings.warn(
        f"{path}: {damage}; it is kept as {kept.name}, and the search goes on from the {len(good)} bytes before that",
        stacklevel=2,
    )
