"""Memory that is freed stays for the next tensors, unless the user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ftnas import memory

HELD = """
import ctypes, sys
from pathlib import Path
from ftnas.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
library, size = ctypes.CDLL(None), 20 * 2**20
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before, block = resident(), library.malloc(size)
ctypes.memset(block, 1, size)
library.free(block)
print(kept, (resident() - before) / size)
"""
glibc_only = pytest.mark.skipif("glibc" not in memory._c_library(), reason="of glibc's allocator")


def run(argument: str, **variables: str) -> tuple[str, float]:
    """Return what ``keep_freed_memory`` said in a process of its own, and what share of a freed block that holds."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", HELD, argument], env=clean | variables, capture_output=True, text=True, check=True
    )
    said, share = done.stdout.split()
    return said, float(share)


@glibc_only
def test_a_process_keeps_the_memory_that_it_has_freed() -> None:
    assert run("as it is")[1] < 0.1
    said, share = run("keep")
    assert said == "True"
    assert share > 0.9


@glibc_only
def test_processes_that_it_starts_keep_theirs() -> None:
    variables = {name: str(value) for name, (_, value) in memory._OPTIONS.items()}
    assert run("as it is", **variables)[1] > 0.9


@glibc_only
def test_it_is_told_to_processes_that_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory._OPTIONS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert memory.keep_freed_memory()
    assert set(memory._OPTIONS) <= set(os.environ)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert not memory.keep_freed_memory()
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory._OPTIONS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(memory, "_c_library", lambda: "")
    assert not memory.keep_freed_memory()
    assert not set(memory._OPTIONS) & set(os.environ)
