"""Which Python files may be run: only those that the user has named, never one that only a file names.

A run folder or a configuration that came from elsewhere may name any file. So what a folder or configuration names is
run if the same file was named on the command line, by ``allow_code``, or in the environment, and refused otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

from ftnas.errors import ModelError

VARIABLE = "FTNAS_ALLOW_CODE"  # absolute paths, joined as in PATH; processes that are started inherit it


def allow_code(*files: Path | str) -> None:
    """Let nets be taken from these Python files, here and in the processes that are started from here.

    Raises:
        ModelError: a path holds the character that separates paths.
    """
    places = [str(Path(file).resolve()) for file in files]
    for place in places:
        if os.pathsep in place:
            raise ModelError(f"{place}: a Python file cannot be run from a path with {os.pathsep!r} in it")
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*_allowed(), *places]))


def demand_allowed(file: Path) -> None:
    """Refuse to run ``file`` unless the user has named it.

    Raises:
        ModelError: nobody but a file names it; the message says how to allow it.
    """
    if str(file.resolve()) not in _allowed():
        raise ModelError(
            f"{file}: is a Python file, and running it has to be allowed: look at it, then give "
            f"ftnas --allow-code {file} and the command"
        )


def _allowed() -> list[str]:
    """Return the files that may be run.

    Raises:
        ModelError: one is named by a relative path, which means another file in every folder.
    """
    places = [place for place in os.environ.get(VARIABLE, "").split(os.pathsep) if place]
    for place in places:
        if not os.path.isabs(place):
            raise ModelError(f"{VARIABLE}: {place} is no absolute path, and would mean another file in every folder")
    return [str(Path(place).resolve()) for place in places]
