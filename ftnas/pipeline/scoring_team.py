"""The workers of a search: processes of its own, and whoever else takes tasks from its board."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from ftnas.errors import RunError
from ftnas.pipeline.run_folder import RunFolder
from ftnas.pipeline.scoring_workers import Post, experiment_of, has_ended, new_name, start_child
from ftnas.search.beating import beating
from ftnas.search.candidates import Score
from ftnas.search.dispatch import Dispatcher
from ftnas.search.storages import UnreadableBoard
from ftnas.search.tasks import TaskBoard
from ftnas.search.work import Experiment, Work
from ftnas.space import Genotype

STARTS = 3
"""So often may each worker end before any has scored something."""

LEAVE_SECONDS = 2.0  # that workers have to see that the study is complete; who is only starting is ended
END_SECONDS = 10.0  # that a process has to end when it is asked to


class Team:
    """Scores candidates by all the workers there are.

    Args:
        own: how many of them are processes of this search.
        chips: that a candidate of the study is scored on.
    """

    def __init__(self, dispatcher: Dispatcher, own: int, chips: int) -> None:
        self._dispatcher, self._own, self._chips = dispatcher, own, range(chips)

    @property
    def workers(self) -> int:
        """How many score at once."""
        return max(self._own, self._dispatcher.lives.living)

    def want(self, genotype: Genotype) -> None:
        """Let a worker begin to score a candidate of the study, unless one did."""
        self._dispatcher.want([Work.on(genotype, self._chips)])

    def score(self, genotype: Genotype) -> Score:
        """Return the score of a candidate of the study when a worker has found it."""
        return self._dispatcher.score(Work.on(genotype, self._chips))

    def scores(self, genotypes: Sequence[Genotype], chips: range) -> Iterator[Score]:
        """Yield the scores of ``genotypes`` on ``chips``, in order, while all workers find them."""
        work = [Work.on(genotype, chips) for genotype in genotypes]
        self._dispatcher.want(work)
        for one in work:
            yield self._dispatcher.score(one)


@contextmanager
def scoring_team(run: RunFolder, storage: str | None) -> Iterator[Team | None]:
    """Start the workers of ``run`` for the block, or yield ``None`` where it has one and shares with no other.

    Raises:
        RunError: the storage does not answer or is of another experiment; workers end whatever they do.
    """
    config = run.config
    if config.search.controller == "nni-evolution" and (config.workers > 1 or storage is not None):
        warnings.warn(
            "search.controller: nni-evolution proposes one candidate after another, so this process scores them all; "
            "workers share the trainings that follow",
            stacklevel=2,
        )
    elif config.workers > 1 or storage is not None:
        directory = None if config.data.directory is None else Path(config.data.directory)
        post = Post(run.path, storage, directory, wait=float("inf"))
        with _team(post, experiment_of(run), config.workers, config.threads, config.scoring.chips) as team:
            yield team
        return
    yield None


@contextmanager
def _team(post: Post, experiment: Experiment, workers: int, threads: int, chips: int) -> Iterator[Team]:
    dispatcher = Dispatcher(_open_board(post.place, experiment), gone=has_ended)
    crew = _Crew(lambda: start_child(post, name=new_name(), threads=threads), dispatcher)
    dispatcher.between = crew.look_after
    try:
        with beating(dispatcher.beat):
            crew.start(workers)
            yield Team(dispatcher, workers, chips)
            dispatcher.close()
            crew.let_go()
    finally:
        crew.end()
        dispatcher.leave()


def _open_board(place: Path | str, experiment: Experiment) -> TaskBoard:
    try:
        return TaskBoard.open(place, experiment)
    except UnreadableBoard as error:
        if not isinstance(place, Path):
            raise
        aside = place.with_name(f"{place.name}.damaged")
        place.replace(aside)
        warnings.warn(f"{error}; it was moved to {aside.name}, and its tasks are put up again", stacklevel=2)
    return TaskBoard.open(place, experiment)


class _Crew:
    """The processes of a search that score; who dies is replaced."""

    def __init__(self, start: Callable[[], BaseProcess], dispatcher: Dispatcher) -> None:
        self._start, self._dispatcher = start, dispatcher
        self._processes: list[BaseProcess] = []
        self._ends, self._scored = 0, 0

    def start(self, workers: int) -> None:
        """Start so many."""
        self._processes += [self._start() for _ in range(workers)]

    def look_after(self) -> None:
        """Replace the dead.

        Raises:
            RunError: they die without scoring anything.
        """
        for process in [process for process in self._processes if not process.is_alive()]:
            self._processes.remove(process)
            self._dispatcher.lives.end(process.name)
            self._count_end(process.exitcode)
            self.start(1)

    def let_go(self) -> None:
        """Wait until all have noticed that the board is closed."""
        ends = time.monotonic() + LEAVE_SECONDS
        for process in self._processes:
            process.join(max(0.0, ends - time.monotonic()))

    def end(self) -> None:
        """End those that still run."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(END_SECONDS)
            process.kill()
            process.join()

    def _count_end(self, code: int | None) -> None:
        if self._dispatcher.scored > self._scored:
            self._ends, self._scored = 0, self._dispatcher.scored
        self._ends += 1
        if self._ends > STARTS * (len(self._processes) + 1):
            raise RunError(
                f"workers: {self._ends} processes ended before they scored a candidate, the last with exit code "
                f"{code}; what they said stands above"
            )
