"""A folder of results belongs to one process at a time, and keeps a list of its checksums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftnas.checksums import LIST, LIST_LOCK, begin_list
from ftnas.distributed import ranks
from ftnas.errors import RunError
from ftnas.locking import HOLDER, LOCK, holding_lock
from ftnas.untrusted import demand_closed

OWN_FILES = {LOCK, HOLDER, LIST, LIST_LOCK}


@contextmanager
def holding(folder: Path, *marks: str) -> Iterator[None]:
    """Hold ``folder`` for the block, made if it is not there: no other process can hold it meanwhile.

    Args:
        folder: of results.
        marks: names of files by which a folder is known to be one of these. What has none of them, and is not new, is
            left alone: whoever opens it refuses it.

    Raises:
        RunError: another process holds it, or nothing can be written there.
    """
    if not ranks().is_first:  # the first of those that train together holds it for all
        yield
        return
    if not is_new(folder) and not any((folder / mark).exists() for mark in marks):
        yield
        return
    demand_closed(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); choose another place") from None
    with holding_lock(folder / LOCK, of=folder):
        list_checksums(folder)
        yield


def list_checksums(folder: Path) -> None:
    """Begin a list of checksums in ``folder``, made if it is not there.

    Raises:
        RunError: nothing can be written there, or a link in it leads out of it.
    """
    demand_closed(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begin_list(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); choose another place") from None


def is_new(folder: Path) -> bool:
    """Return whether there is nothing at ``folder``, or a folder with no more in it than a killed process may leave."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(_is_left_over(file) for file in folder.iterdir())


def _is_left_over(file: Path) -> bool:
    return file.name in OWN_FILES or (file.name.startswith(".") and file.suffix in (".part", ".lock"))
