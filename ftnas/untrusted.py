"""What comes out of other people's files: texts that become paths, and data of any shape."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftnas.errors import ConfigError, FtnasError, RunError

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes that a file system takes

_NAME = re.compile(r"[A-Za-z0-9_+,=@()-][A-Za-z0-9_.+,=@() -]*")


def path_of(text: str) -> Path:
    """Return ``text``, which somebody has given as a place, as a path.

    Raises:
        ConfigError: no file system has such a path.
    """
    try:
        path = Path(text)
        longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
        whole = len(os.fsencode(path))
    except UnicodeEncodeError:
        longest = whole = LONGEST_PATH + 1
    if "\0" in text or longest > LONGEST_NAME or whole > LONGEST_PATH:
        raise ConfigError(f"{text[:60]}: is no path; a name in one has up to {LONGEST_NAME} bytes, none of them zero")
    return path


def plain_name(name: object, source: object) -> str:
    """Return ``name``, read from ``source``, if it can be that of a file or folder and leads nowhere else.

    Raises:
        RunError: it is no text, or a path.
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise RunError(f"{source}: {str(name)[:80]!r} is no name of a file in a folder of ftnas")
    return name


def inside(folder: Path, path: Path) -> Path:
    """Return ``path`` if it lies in ``folder``, links followed.

    Raises:
        RunError: it leads out.
    """
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle; names that no file system has
        is_inside = False
    if not is_inside:
        raise RunError(f"{path}: leads out of {folder}, which nothing in it may")
    return path


def demand_closed(folder: Path) -> None:
    """Refuse a folder in which a link leads out of it, or which holds what is neither file nor folder.

    Else what is written into the folder could land anywhere, and reading a pipe in it could wait without end.

    Raises:
        RunError: names the first such entry.
    """
    home = os.path.realpath(folder)
    waiting = [home] if os.path.isdir(home) else []
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError as error:
            raise RunError(f"{error.filename}: cannot be read ({error.strerror})") from None
        for entry in entries:
            if entry.is_symlink():
                inside(folder, Path(entry.path))
            elif entry.is_dir():
                waiting.append(entry.path)
            elif not entry.is_file():
                raise RunError(f"{entry.path}: is neither a file nor a folder, and has no place in {folder}")


@contextmanager
def understood(source: object, error: type[FtnasError] = RunError) -> Iterator[None]:
    """Name ``source`` where the block, which takes the data out of it, finds other data than are written there.

    For that alone: a mistake of ours in the block would be blamed on the file.
    """
    try:
        yield
    except FtnasError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as mistake:
        what = f"the key {mistake} is missing" if type(mistake) is KeyError else str(mistake) or type(mistake).__name__
        raise error(f"{source}: is damaged, or not as ftnas writes it ({what})") from None
