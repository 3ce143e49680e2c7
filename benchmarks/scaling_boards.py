"""What a task costs on each storage. Started by ``scaling.py``."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scaling_support import SPACE, Options, Row, scoring_seconds
from timing import print_rows, verdict

from ftnas.pipeline.scoring_workers import about_this_process
from ftnas.runtime import keyed_generator
from ftnas.search.candidates import Score
from ftnas.search.dispatch import Dispatcher
from ftnas.search.tasks import TaskBoard
from ftnas.search.work import Experiment, State, Work
from ftnas.search.working import Worker

TESTS = Path(__file__).parents[1] / "tests"


def storages(options: Options) -> Row:
    """Measure what a task costs on each storage: put up, claimed, scored in no time, told and read."""
    experiment = Experiment("benchmark", "0" * 12, "0" * 12)
    found: Row = {}
    with tempfile.TemporaryDirectory(prefix="ftnas-scaling-") as folder:
        for kind in ("journal", "sqlite", "postgresql", "grpc"):
            with _place(kind, Path(folder)) as place:
                if place is not None:
                    found[kind] = _one_by_one(TaskBoard.open(place, experiment), options.trials)
    second = scoring_seconds(options.run)
    rows = []
    for kind, seconds in found.items():
        share = 100 * seconds["last"] / second
        numbers = [f"{1000 * seconds[name]:.2f}" for name in ("first", "last", "processor")]
        rows.append((kind, *numbers, f"{share:.2f}", *verdict(share, 2.0)))
    print_rows(
        ("storage", "ms at first", f"ms at {options.trials}", "CPU ms", "% of scoring", "goal", ""),
        rows,
        f"of a task, search and worker together; a candidate takes {second:.2f} s to score",
    )
    return {"tasks": options.trials, "seconds": found, "scoring_seconds": second}


@contextmanager
def _place(kind: str, folder: Path) -> Iterator[Path | str | None]:
    if kind == "postgresql":
        sys.path.insert(0, str(TESTS))
        import postgresql

        if postgresql.program("initdb") is None:
            print(postgresql.REASON)
            yield None
        else:
            with postgresql.server() as url:
                yield url
    elif kind == "grpc":
        with _server_process() as url:
            yield url
    else:
        yield folder / "tasks.log" if kind == "journal" else f"sqlite:///{folder / 'tasks.db'}"


SERVER = """
import sys
from ftnas.search.storages import serving
with serving("127.0.0.1", int(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _server_process() -> Iterator[str]:
    """Serve in another process, as a storage-server does; it ends when this one closes its input."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"grpc://127.0.0.1:{port}"
        process.communicate()


def _one_by_one(board: TaskBoard, tasks: int) -> Row:
    """Return wall seconds of a task, the median of the first and the last hundred, and CPU seconds of all."""
    dispatcher = Dispatcher(board, sleep=lambda _: None)
    worker = Worker(board, lambda work: Score(0.5, 0.25, (0.25,) * 8), name="w", about=about_this_process(), wait=1e9)
    worker.beat()
    work = [Work.on(SPACE.sample(keyed_generator("scaling", number)), range(8)) for number in range(tasks)]
    seconds = []
    began = time.process_time()
    for one in work:
        start = time.perf_counter()
        dispatcher.want([one])
        worker.once()
        dispatcher.score(one)
        seconds.append(time.perf_counter() - start)
    processor = (time.process_time() - began) / tasks
    assert len(board.tasks(State.SCORED)) == tasks
    board.close()
    return {
        "first": statistics.median(seconds[:100]),
        "last": statistics.median(seconds[-100:]),
        "mean": statistics.fmean(seconds),
        "processor": processor,
    }
