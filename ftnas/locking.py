"""Locks that the system holds: a process that dies, however hard, holds none any more."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftnas.errors import RunError

LOCK, HOLDER = ".lock", ".lock.json"


@contextmanager
def holding_lock(path: Path, *, of: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for the block; beside it stands who does, for whoever comes second.

    Args:
        path: of the lock, an empty file that stays behind.
        of: what the lock is for, as messages name it.

    Raises:
        RunError: another process holds it, or it cannot be written; the message names host and process.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{of}: is in use by {_holder(path)}; wait for it, stop it, or choose another place") from None
    except NotImplementedError:
        warnings.warn(f"{of}: this file system has no locks; see yourself that no other process uses it", stacklevel=2)
        yield
        return
    except OSError as error:
        raise RunError(f"{of}: cannot be written ({error.strerror}); choose another place") from None
    try:
        _write_holder(path)
        yield
    finally:
        _named(path).unlink(missing_ok=True)
        lock.release()


@contextmanager
def waiting_for_lock(path: Path, *, seconds: float = 30.0) -> Iterator[None]:
    """Hold the lock file ``path`` for the block, which is a short one, and wait for others; without locks go ahead.

    Raises:
        RunError: another process has held it for so long.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.005)
    except Timeout:
        raise RunError(f"{path}: another process has held this lock for {seconds:g} s; is it stopped?") from None
    except (NotImplementedError, OSError):  # no locks there, or a folder that can only be read
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _named(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_holder(path: Path) -> None:
    """Say who holds the lock; where that cannot be written, the lock holds all the same."""
    content = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": shlex.join(["ftnas", *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(content) + "\n", encoding="utf-8")
        part.replace(_named(path))
    except OSError:
        part.unlink(missing_ok=True)


def _holder(path: Path) -> str:
    """Return who holds the lock, as far as that is known."""
    try:
        found: Any = json.loads(_named(path).read_text(encoding="utf-8"))
        return f"process {int(found['pid'])} on {found['host']} (since {found['since']}: {found['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
