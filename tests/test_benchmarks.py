"""The benchmark of steps, run once; what it measures is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "steps.py"


@pytest.mark.slow
def test_the_benchmark_prints_a_verdict_for_every_goal() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--repeats", "1"], capture_output=True, text=True, check=True)
    assert done.stdout.count("met") + done.stdout.count("missed") >= 7
