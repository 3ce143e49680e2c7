"""The file that is a task board where no other storage is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]


class TaskJournal(JournalFileBackend):
    """An Optuna journal file that several processes write.

    The lock is the system's, so a kill never leaves it behind. A line that a full disk cut short is removed by who
    writes next. Nothing waits for the disk: the study's own journal is the record, and this file can be lost.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append ``logs``, one line each."""
        if fcntl is None:
            super().append_logs(logs)
            return
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        with self._path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, 2)
            end = _whole_lines(file, size)
            if end < size:
                file.truncate(end)
            file.seek(end)
            file.write(lines)


def _whole_lines(file: Any, size: int) -> int:
    """Return where the last whole line of ``file`` ends."""
    step = 1
    while size:
        start = max(0, size - step)
        file.seek(start)
        found = file.read(size - start).rfind(b"\n")
        if found >= 0:
            return int(start) + int(found) + 1
        if start == 0:
            return 0
        step *= 64
    return 0
