"""What is looked at in an HDF5 file, the container of NIR, before its library reads it: a stranger may have made it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

PACKED, FREE = 200, 2**26  # how many times the file all values may be, above so many bytes
WORD = 8  # bytes of a length and of an address

# A collection of strings, "global heap" in the HDF5 file format specification (version 3, section III.E): signature,
# version, 3 bytes and its size; then objects of number, references, 4 bytes, size and, but for number 0, their bytes.
HEAP, VERSION, HEADER, LEAST_HEAP = b"GCOL", 1, 16, 4096


def check_file(path: Path) -> None:
    """Refuse a file that leads out of itself, unpacks to what fills the memory, or keeps the library busy for ever.

    Raises:
        ValueError: names the member.
    """
    h5py = importlib.import_module("h5py")  # with which the package ``nir`` reads
    with h5py.File(path, "r") as file:
        if file.id.get_create_plist().get_sizes() != (WORD, WORD):
            raise ValueError(f"its addresses and lengths are not of {WORD} bytes")
        check_heaps(path.read_bytes())
        size = _size_of_members(h5py, file)
    if size > FREE + PACKED * path.stat().st_size:
        raise ValueError(f"it unpacks to {size} bytes, more than {PACKED} times its size")


def _size_of_members(h5py: Any, file: Any) -> int:
    """Return the bytes of all values, each of which must be in the file itself, at one place."""
    waiting, seen, size = [file["/"]], set(), 0
    while waiting:
        group = waiting.pop()
        for name in group:
            member = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
            if member is None or h5py.h5o.get_info(member.id).addr in seen:
                raise ValueError(f"{group.name}/{name} is a link")
            seen.add(h5py.h5o.get_info(member.id).addr)
            if isinstance(member, h5py.Group):
                waiting.append(member)
                continue
            if not isinstance(member, h5py.Dataset) or member.external or member.is_virtual:
                raise ValueError(f"{group.name}/{name} has its values elsewhere")
            size += member.nbytes
    return size


def check_heaps(content: bytes) -> None:
    """Refuse collections of strings whose objects do not follow each other to the end.

    The library steps from object to object by their sizes, without looking whether it moves: over an empty object with
    number 0 for ever, and backwards where a sum of sizes overflows.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: says where in the file.
    """
    start = content.find(HEAP)
    while start >= 0:
        _check_heap(content, start)
        start = content.find(HEAP, start + 1)


def _check_heap(content: bytes, start: int) -> None:
    size = _number(content, start + 8, WORD)
    if content[start + 4 : start + 5] != bytes([VERSION]) or size < LEAST_HEAP:
        return  # which the library looks at itself; or these letters are something else
    at, end = start + HEADER, min(start + size, len(content))
    while at + HEADER <= end:
        number, length = _number(content, at, 2), _number(content, at + 8, WORD)
        step = length if number == 0 else HEADER + -(-length // WORD) * WORD
        if not HEADER <= step <= end - at:
            raise ValueError(f"the collection of strings at byte {start} has an object of {length} bytes at {at}")
        at += step


def _number(content: bytes, start: int, size: int) -> int:
    return int.from_bytes(content[start : start + size], "little")
