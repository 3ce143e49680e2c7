"""The worker's side of the task board: claim what waits, score it, write the score, and tell that it lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ftnas.errors import FtnasError, RunError
from ftnas.search.beating import beating
from ftnas.search.candidates import Score
from ftnas.search.tasks import CLOSED, SEARCH, WORKER, BoardLost, TaskBoard
from ftnas.search.work import State, Task, Work

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # between two looks at a board on which nothing waits


class Worker:
    """Scores what waits on ``board`` until the search closes it.

    Args:
        score: gives the score of some work, a function of the work alone.
        name: of this worker, as no other has it.
        about: what it says of itself: host, process.
        wait: for so many seconds without a sign of life of the search.
    """

    def __init__(
        self,
        board: TaskBoard,
        score: Callable[[Work], Score],
        *,
        name: str,
        about: Mapping[str, Any],
        wait: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._board, self._score, self._name, self._about = board, score, name, about
        self._wait, self._clock, self._sleep = wait, clock, sleep
        self._beats = 0
        self._search: tuple[Any, float] = (None, clock())
        self.scored = 0

    def run(self) -> int:
        """Work until the board is closed; return how many tasks were scored.

        Raises:
            RunError: the search or the storage has not been heard of for too long.
            BoardLost: the storage has forgotten the board.
        """
        pause = FIRST_PAUSE
        with self._living():
            while True:
                if self.once():
                    pause = FIRST_PAUSE
                elif self._closed():
                    return self.scored
                else:
                    self._sleep(pause)
                    pause = min(1.5 * pause, LONGEST_PAUSE)

    def once(self) -> bool:
        """Claim and score one task; return whether one was waiting."""
        for task in self._board.tasks(State.WAITING):
            if self._board.claim(task, self._name):
                self._do(task)
                return True
        return False

    def beat(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        self._board.write(WORKER + self._name, {**self._about, "beat": self._beats})

    def leave(self) -> None:
        """Say that this worker is gone."""
        self._board.write(WORKER + self._name, {**self._about, "beat": self._beats, "left": True})

    def _do(self, task: Task) -> None:
        if task.content.get("board") != self._board.experiment.board:
            self._board.end(task, "is of another experiment")
            raise RunError(f"{self._board.experiment.board}: a task of another experiment is on this board")
        try:
            score = self._score(task.work())
        except Exception as error:
            self._board.end(task, f"{type(error).__name__}: {error}", failed=True)
            raise
        except BaseException:
            self._board.end(task, "its worker was stopped")
            raise
        if self._board.finish(task, score):
            self.scored += 1

    def _closed(self) -> bool:
        """Return whether the search needs no more scores; notice when it is not heard of."""
        remarks, now = self._board.remarks(), self._clock()
        if remarks.get(SEARCH) != self._search[0]:
            self._search = (remarks.get(SEARCH), now)
        elif now - self._search[1] > self._wait:
            raise RunError(f"the search has not been heard of for {self._wait:.0f} s; its command goes on with it")
        return bool(remarks.get(CLOSED))

    @contextmanager
    def _living(self) -> Iterator[None]:
        """Give signs of life during the block, and say so when it ends."""
        try:
            with beating(self.beat):
                yield
        finally:
            with suppress(BoardLost, FtnasError):  # who cannot be told will notice
                self.leave()
