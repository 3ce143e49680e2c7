"""What a reader is to the fuzzers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_edits import Codec


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        make: writes valid files into an empty folder.
        read: reads them; the folder is as ``make`` left it but for one file.
        targets: the files that are edited, one at a time, with the codec that knows the format of each.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    targets: Mapping[str, Codec] = field(default_factory=dict)


def plain(make: Callable[[Path], object], read: Callable[[Path], object], codec: Codec) -> Reader:
    """Return the reader of one file, called ``file``."""
    return Reader(lambda folder: make(folder / "file"), lambda folder: read(folder / "file"), {"file": codec})
