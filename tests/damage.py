"""What happens to files: a bit that flips, an end that is lost, and a process that is killed."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path, byte: int) -> None:
    path.write_bytes(path.read_bytes()[:byte])


class Killed(BaseException):
    """Nothing after it runs but what a power cut would leave."""
