"""Task boards on every storage, with a scorer that takes no time, and worker processes to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ftnas.runtime import key_seed, keyed_generator
from ftnas.search.candidates import Score
from ftnas.search.tasks import TaskBoard
from ftnas.search.work import Experiment, Work
from ftnas.space import Genotype, load_space

SPACE = load_space("digits")
EXPERIMENT = Experiment("test", "0123456789ab", "ba9876543210")


def genotype(number: int) -> Genotype:
    return SPACE.sample(keyed_generator("board", number))


def work(number: int) -> Work:
    return Work.on(genotype(number), range(2))


def score(done: Work) -> Score:
    """Return a score that is a function of the work alone, with all its bits in use."""
    luck = key_seed(done.name) / 2**63
    return Score(luck, luck / 3, tuple(luck / (4 + chip) for chip in done.chips))


def board_at(place: Path | str) -> TaskBoard:
    return TaskBoard.open(place, EXPERIMENT)


WORKER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import ftnas.search.beating
ftnas.search.beating.BEAT_SECONDS = 0.2
from board_support import EXPERIMENT, board_at, score
from ftnas.pipeline.scoring_workers import about_this_process
from ftnas.search.working import Worker
place, name, seconds = sys.argv[2], sys.argv[3], float(sys.argv[4])
def slowly(work):
    print(work.name, flush=True)
    time.sleep(seconds)
    return score(work)
board = board_at(place if "://" in place else Path(place))
Worker(board, slowly, name=name, about=about_this_process(), wait=60).run()
"""


def start_worker(place: Path | str, name: str, *, seconds: float = 0.0) -> subprocess.Popen[str]:
    """Start a process that scores what waits at ``place``, each in ``seconds``, and prints what it begins with."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", WORKER, str(root / "tests"), str(place), name, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def begun(process: subprocess.Popen[str]) -> list[str]:
    """Return the names of the work that an ended worker began with."""
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.read().split()


def wait_until(true: Callable[[], bool], *, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)
