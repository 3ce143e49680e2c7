"""Every reader, given changed files: it reads them or refuses them in one line, in time and in memory."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import fuzz_binary
import pytest
from fuzz_guard import Target, fuzz
from fuzz_readers import READERS

INPUTS, MANY = 100, 10_000
# Those that take more than 10 ms an input, and so fewer in the default suite.
FEW = {
    "report of a run folder": 3, "description of a run folder": 20, "run folder": 30, "training folder": 15,
    "exported hardened net": 10, "exported baseline": 10, "exported net of cells": 15, "torch.export program": 20,
    "spiking layers as NIR": 30, "study journal": 15, "yaml of an experiment": 30, "yaml of hardening": 20,
    "yaml of graph experiments": 20, "yaml of spiking layers": 40, "yaml of a search space": 40, "npz": 50,
}  # fmt: skip
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    fuzz(Target(READERS[name](), tmp_path), FEW.get(name, INPUTS), repeatable=True)


def run(*command: object) -> str:
    """Run a script of these tests; its output is what an assertion shows."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=HERE, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_changed_files_are_read_or_refused(name: str) -> None:
    assert " inputs, " in run("fuzz_guard.py", name, MANY)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason='needs atheris: pip install "ftnas[dev]"')
@pytest.mark.parametrize("name", fuzz_binary.NAMES)
def test_a_fuzzer_that_follows_the_branches_finds_nothing(name: str, tmp_path: Path) -> None:
    run("fuzz_binary.py", name, tmp_path, MANY)
