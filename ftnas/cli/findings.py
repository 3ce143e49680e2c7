"""What ``ftnas doctor`` finds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "note", "wrong"]
Part = Literal["ftnas", "devices", "packages", "extras", "tools", "folders", "nni"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        found: a version, a device, a place, or that there is none.
        status: ``note`` is of something that ftnas can do without, ``wrong`` of something that it cannot.
        remedy: what to do about it, a command where there is one; empty where all is well.
    """

    part: Part
    name: str
    found: str
    status: Status = "ok"
    remedy: str = ""


def writable(name: str, place: Path, remedy: str) -> Finding:
    """Return whether a file can be made in ``place``, or in the nearest folder above it that is there."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding("folders", name, str(place))
    except OSError as error:
        return Finding("folders", name, f"{place}: {error.strerror}", "note", remedy)
