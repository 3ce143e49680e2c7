"""The search's side of the task board: what is wanted stays on it until a living worker has scored it.

Whether a worker lives is judged by whether what it counts goes on counting, by this process's own clock, so clocks of
machines need not agree.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ftnas.errors import RunError
from ftnas.search.beating import BEAT_SECONDS, DEAD_SECONDS
from ftnas.search.candidates import Score
from ftnas.search.tasks import CLOSED, SEARCH, WORKER, BoardLost, TaskBoard
from ftnas.search.work import State, Task, Work

DEATHS = 3
"""After so many workers have died at one task, it is the task."""

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05  # between two looks at the board
REST = 30  # times as long as a look took: on a machine whose cores all score, looking takes from scoring


class Lives:
    """Which workers live, as far as can be told.

    Args:
        clock: seconds that only grow.
        gone: whether a worker, by what it says of itself, is known to have ended.
    """

    def __init__(self, clock: Callable[[], float], gone: Callable[[Mapping[str, Any]], bool]) -> None:
        self._clock, self._gone = clock, gone
        self._seen: dict[str, tuple[Any, float]] = {}
        self._claimed: dict[int, float] = {}  # when a task was first seen to be somebody's
        self._ended: set[str] = set()

    def note(self, remarks: Mapping[str, Any]) -> None:
        """Take in the signs of life that stand on the board."""
        now = self._clock()
        for key, sign in remarks.items():
            if key.startswith(WORKER) and isinstance(sign, dict):
                name = key.removeprefix(WORKER)
                if sign.get("left") or self._gone(sign):
                    self._ended.add(name)
                elif name not in self._seen or self._seen[name][0] != sign.get("beat"):
                    self._seen[name] = (sign.get("beat"), now)

    def end(self, name: str) -> None:
        """Note that the worker ``name`` is known to have ended."""
        self._ended.add(name)

    def forget_tasks(self) -> None:
        """Forget which tasks were claimed when: their storage has given their numbers to others."""
        self._claimed.clear()

    def lost(self, task: Task) -> bool:
        """Return whether whoever claimed ``task`` is dead."""
        now = self._clock()
        # Not before it had time for a sign since: who was cut off may claim a task in the moment it is back. Nor who
        # has not said its name yet.
        since = self._claimed.setdefault(task.identity, now)
        if task.worker is None:
            return now - since > DEAD_SECONDS
        if task.worker in self._ended:
            return True
        last = self._seen.setdefault(task.worker, (None, now))[1]
        return now - max(last, since) > DEAD_SECONDS

    @property
    def living(self) -> int:
        """How many workers gave a sign of life lately."""
        now = self._clock()
        recent = (name for name, (_, when) in self._seen.items() if now - when <= DEAD_SECONDS)
        return sum(name not in self._ended for name in recent)


class Dispatcher:
    """Gets architectures scored by the workers of a board.

    Args:
        board: that belongs to this search alone, as its only one.
        clock: seconds that only grow.
        sleep: waits for so many seconds.
        gone: whether a worker, by what it says of itself, is known to have ended.

    Attributes:
        between: called between two looks at the board; may raise, which ends the wait.
    """

    def __init__(
        self,
        board: TaskBoard,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        gone: Callable[[Mapping[str, Any]], bool] = lambda _: False,
    ) -> None:
        self.lives = Lives(clock, gone)
        self.between: Callable[[], None] = lambda: None
        self._board, self._clock, self._sleep = board, clock, sleep
        self._wanted: dict[str, Work] = {}
        self._scores: dict[str, Score] = {}
        self._there: set[str] | None = None  # what waits or is being scored, as far as is known
        self._settled: set[int] = set()
        self._inherited: set[int] = set()
        self._deaths: Counter[str] = Counter()
        self._looked = -BEAT_SECONDS
        self._sign, self._beats = secrets.token_hex(4), 0
        board.write(CLOSED, False)
        self._take_over(board.tasks())

    @property
    def scored(self) -> int:
        """How many scores came from workers so far."""
        return len(self._scores)

    def want(self, work: Iterable[Work]) -> None:
        """Put ``work`` up for the workers, but for what is there already."""
        new = {one.name: one for one in work if one.name not in self._wanted}
        self._wanted |= new
        if self._there is None:
            return self.step()
        try:
            self._put_up(new)
        except BoardLost:
            self.step()  # notices the same

    def score(self, work: Work) -> Score:
        """Return the score of ``work`` when a worker has found it.

        Raises:
            RunError: ``DEATHS`` workers died at it, or the storage does not answer any more.
        """
        self.want([work])
        pause = FIRST_PAUSE
        while work.name not in self._scores:
            self.between()
            began = self._clock()
            self.step()
            if work.name not in self._scores:
                self._sleep(max(pause, REST * (self._clock() - began)))
                pause = min(1.5 * pause, LONGEST_PAUSE)
        self._wanted.pop(work.name, None)
        return self._scores[work.name]

    def step(self) -> None:
        """Look at the board once: take scores, give up what the dead hold, put up what is missing."""
        try:
            self._look_for_life()
            self._there = self._read(self._board.tasks(but=self._settled))
            self._put_up(self._wanted)
        except BoardLost:
            self._board = self._board.reopened()
            self._there = None
            self.lives.forget_tasks()
            self._settled.clear()
            self._inherited.clear()
            self._looked = -BEAT_SECONDS

    def _put_up(self, names: Iterable[str]) -> None:
        """Put up those of ``names`` that nobody has scored and that are not there."""
        there = self._there = self._there or set()
        for name in [name for name in names if name not in self._scores and name not in there]:
            self._board.post(self._wanted[name])
            there.add(name)

    def beat(self) -> None:
        """Give a sign of life to the workers."""
        self._beats += 1
        self._board.write(SEARCH, f"{self._sign} {self._beats}")

    def close(self) -> None:
        """Let the workers go: the search needs no more scores."""
        try:
            self._board.write(CLOSED, True)
        except BoardLost:  # and with it the workers' tasks
            return

    def leave(self) -> None:
        """Close the storage; the board stays as it is."""
        self._board.close()

    def _take_over(self, tasks: Iterable[Task]) -> None:
        """Let the deaths under a search before this one not count."""
        for task in tasks:
            if task.state is State.ENDED:
                self._settled.add(task.identity)
            elif task.state is State.RUNNING:
                self._inherited.add(task.identity)

    def _look_for_life(self) -> None:
        now = self._clock()
        if now - self._looked < BEAT_SECONDS:
            return
        self._looked = now
        self.lives.note(self._board.remarks())

    def _read(self, tasks: Iterable[Task]) -> set[str]:
        """Take in what is new; return the names of the tasks that wait or are being scored."""
        there: set[str] = set()
        for task in tasks:
            if task.state in (State.SCORED, State.ENDED):
                self._settle(task)
            elif task.name in there or (task.state is State.RUNNING and self.lives.lost(task)):
                self._give_up(task, twice=task.name in there)
            else:
                there.add(task.name)
        return there

    def _settle(self, task: Task) -> None:
        self._settled.add(task.identity)
        score = task.score()
        if task.state is State.SCORED and score is not None:
            self._scores.setdefault(task.name, score)
        elif task.state is State.SCORED or "failed" in task.content:
            self._count_death(task, str(task.content.get("failed", "its score cannot be read")))

    def _give_up(self, task: Task, *, twice: bool) -> None:
        """End what a dead worker holds, or what was put up a second time as the answer to the first was lost."""
        reason = "it was put up twice" if twice else "its worker died"
        if self._board.end(task, reason):
            self._settled.add(task.identity)
            if not twice and task.identity not in self._inherited:
                self._count_death(task, reason)

    def _count_death(self, task: Task, reason: str) -> None:
        self._deaths[task.name] += 1
        if self._deaths[task.name] >= DEATHS and task.name in self._wanted:
            raise RunError(
                f"architecture {task.name.partition('-')[0]}: {DEATHS} workers ended while they scored it, the last "
                f"because: {reason}; the same command tries again"
            )
