"""What the C library does with memory that is not used any more."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# By default glibc gives the memory of large tensors back to the system after each pass, and asks for it anew in the
# next: 15,000 page faults, a quarter of the time of a forward pass of ResNet-20 (benchmarks/README.md).
KEPT = 2**30  # bytes at the top of the heap that are not given back
LARGEST_ON_HEAP = 2**25  # bytes of a block, the most that glibc allows

# Numbers of mallopt (glibc's malloc.h), and the variables that do the same as a process starts.
_OPTIONS: Mapping[str, tuple[int, int]] = {
    "MALLOC_TRIM_THRESHOLD_": (-1, KEPT),
    "MALLOC_MMAP_THRESHOLD_": (-3, LARGEST_ON_HEAP),
}


def keep_freed_memory() -> bool:
    """Let this process and those that it starts keep freed memory for their next tensors; return whether it does.

    A process then stays as large as it has been at most. What the user has set in the environment stays, and where the
    C library is another than glibc, all does.
    """
    if any(name in os.environ for name in _OPTIONS) or "glibc" not in _c_library():
        return False
    library = ctypes.CDLL(None)
    done = [library.mallopt(number, value) == 1 for number, value in _OPTIONS.values()]
    os.environ.update({name: str(value) for name, (_, value) in _OPTIONS.items()})
    return all(done)


def _c_library() -> str:
    """Return name and version of the C library, nothing where it does not say."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # not Linux, or another library
        return ""
