"""A process that scores candidates for a search: one of ``--workers``, or ``ftnas worker`` on any machine."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.errors import FtnasError, RunError
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.run_folder import FREE_KEYS, RunFolder, reopen_run
from ftnas.pipeline.shared_weights import WEIGHTS, read_supernet, study_scorer, weights_digest
from ftnas.runtime import choose_device, use_threads
from ftnas.search.candidates import Score
from ftnas.search.places import shown
from ftnas.search.storages import open_storage
from ftnas.search.studies import quiet
from ftnas.search.tasks import BoardLost, TaskBoard, board_names, patiently
from ftnas.search.work import Experiment, Work, digest, digest_of
from ftnas.search.working import Worker
from ftnas.stopping import end_with_parent, notice_in_worker

TASKS = ("study", "tasks.log")
WAIT_SECONDS = 600.0
LOOK_SECONDS = 0.5  # between two looks for what is waited for


@dataclass(frozen=True)
class Post:
    """Where a worker works.

    Attributes:
        run: the run folder, or a copy of it.
        storage: the URL of the task board's storage; ``None`` is a file of the run folder.
        data_directory: replaces ``data.directory``.
        wait: for so many seconds, for a supernet, for tasks, and for a search that is not heard of.
    """

    run: Path
    storage: str | None = None
    data_directory: Path | None = None
    wait: float = WAIT_SECONDS

    @property
    def place(self) -> Path | str:
        """Where the task board is."""
        return self.storage or self.run.joinpath(*TASKS)


def experiment_of(run: RunFolder) -> Experiment:
    """Return what a score of ``run`` depends on."""
    config = run.config.model_dump(mode="json", exclude=set(FREE_KEYS))
    config["data"] = {key: value for key, value in config["data"].items() if key != "directory"}
    recipe = digest(digest_of(config), digest_of(run.space.to_dict()))
    return Experiment(run.config.name, recipe, weights_digest(run))


def work(post: Post, *, name: str, threads: int | None, tell: Callable[[str], None]) -> int:
    """Score what the search of ``post`` wants until it wants no more; return how many candidates that were.

    Args:
        name: of this worker, as no other has it.
        threads: of torch; ``None`` takes the configuration's.
        tell: is given a line when there is something to say.

    Raises:
        RunError: what is waited for does not come, or belongs to something else.
    """
    run = _open(post)
    if run.file("study", "leaders.json").exists():
        tell(f"{post.run}: the study is complete, there is nothing to score")
        return 0
    if threads is None and run.config.threads > (os.cpu_count() or 1):
        raise RunError(
            f"{post.run}: its configuration asks for {run.config.threads} threads, and this machine has "
            f"{os.cpu_count()} cores; choose fewer with --threads"
        )
    use_threads(threads or run.config.threads)
    weights = run.file(*WEIGHTS)
    _wait_until(weights.exists, post.wait, f"{weights}, which the search has not trained yet", tell)
    data = load_dataset(run.config, choose_device(run.config.device))
    scorer = study_scorer(run, data, read_supernet(run, data))

    def score(work: Work) -> Score:
        return scorer.score(work.genotype, work.chips)

    experiment = experiment_of(run)
    scored = 0
    while True:
        board = _board(post, experiment, tell)
        worker = Worker(board, score, name=name, about=about_this_process(), wait=post.wait)
        try:
            worker.run()
        except BoardLost:
            tell(f"{shown(post.place)}: has forgotten its tasks; waiting for the search to put them up again")
            continue
        finally:
            board.close()
            scored += worker.scored
        return scored


def start_child(post: Post, *, name: str, threads: int) -> multiprocessing.process.BaseProcess:
    """Start a worker as a process that does not outlive this one."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_child, args=(post, name, threads), name=name, daemon=True)
    process.start()
    return process


def new_name() -> str:
    """Return a name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def about_this_process() -> dict[str, Any]:
    """Return what a worker says of itself, for ``has_ended``."""
    return {"host": socket.gethostname(), "machine": _machine(), "process": os.getpid()}


def has_ended(about: Mapping[str, Any]) -> bool:
    """Return whether the worker that said this of itself ran on this machine, and runs no more."""
    process = about.get("process")
    if os.name != "posix" or about.get("machine") != _machine() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _machine() -> str:
    """Return what names this machine since it was started, and what its process numbers belong to."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux
        pass
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _child(post: Post, name: str, threads: int) -> None:
    notice_in_worker()
    end_with_parent()
    try:
        work(post, name=name, threads=threads, tell=lambda line: None)
    except FtnasError as error:
        print(f"ftnas: a worker ended: {error}", file=sys.stderr)
        sys.exit(2)


def _open(post: Post) -> RunFolder:
    run = reopen_run(post.run)
    if post.data_directory is None:
        return run
    data = run.config.data.model_copy(update={"directory": str(post.data_directory)})
    return RunFolder(run.path, run.config.model_copy(update={"data": data}), run.space)


def _board(post: Post, experiment: Experiment, tell: Callable[[str], None]) -> TaskBoard:
    """Return the board as soon as the search has made it."""
    place = post.place
    if isinstance(place, Path):
        what = f"tasks in {place}; the search puts them up with --workers 2 or more"
        _wait_until(place.exists, post.wait, what, tell)
    with quiet():
        storage = open_storage(place)
        found: list[TaskBoard] = []

        def joined() -> bool:
            with suppress(BoardLost):  # it was lost while it was looked at
                board = patiently(lambda: TaskBoard.join(place, experiment, storage), place, sleep=time.sleep)
                found.extend([board] if board else [])
            return bool(found)

        names = patiently(lambda: board_names(storage), place, sleep=time.sleep)
        others = ", ".join(name for name in names if name != experiment.board)
        there = f"; there are those of {others}" if others else ""
        _wait_until(joined, post.wait, f"tasks of {experiment.board} in {shown(place)}{there}", tell)
    return found[0]


def _wait_until(there: Callable[[], bool], seconds: float, what: str, tell: Callable[[str], None]) -> None:
    """Wait until ``there`` says yes.

    Raises:
        RunError: it has not for ``seconds``.
    """
    if there():
        return
    tell(f"waiting for {what}")
    ends = time.monotonic() + seconds
    while not there():
        if time.monotonic() >= ends:
            raise RunError(f"--wait {seconds:g}: waited in vain for {what}")
        time.sleep(LOOK_SECONDS)
