"""The task board: an Optuna study in which a trial is an architecture to score, and workers take what waits there.

Optuna makes the steps of a task atomic on every storage: of several workers one claims it, and it ends once. So a task
that was given up for dead cannot end a second time when its worker wakes up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ftnas import __version__
from ftnas.errors import RunError
from ftnas.search.candidates import Score
from ftnas.search.places import shown
from ftnas.search.storages import close_storage, is_outage, open_storage
from ftnas.search.studies import quiet
from ftnas.search.work import Experiment, State, Task, Work

PROTOCOL = 1
"""Of what stands on a board; workers and searches of different protocols do not understand each other."""

PATIENCE_SECONDS = 60.0
"""How long a storage that answered before may be away."""

WORKER, CLOSED, SEARCH, BOARD = "worker ", "closed", "search", "board"
Result = TypeVar("Result")


class BoardLost(Exception):
    """The storage has no such board any more: a server in memory was started anew."""


class TaskBoard:
    """A board in a storage that is open; every step waits ``PATIENCE_SECONDS`` for a storage that is away.

    Args:
        place: of the storage, by which it is opened again after it was lost.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        place: Path | str,
        experiment: Experiment,
        *,
        storage: BaseStorage,
        study: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.place, self.experiment = place, experiment
        self._storage, self._study, self._sleep = storage, study, sleep

    @classmethod
    def open(cls, place: Path | str, experiment: Experiment, storage: BaseStorage | None = None) -> TaskBoard:
        """Return the search's board, made where there is none yet.

        Raises:
            RunError: the storage does not answer, or the board there is of other weights, version or experiment.
        """
        storage = storage or open_storage(place)
        found = cls.join(place, experiment, storage)
        if found is not None:
            return found
        with quiet():
            try:
                study = storage.create_new_study([StudyDirection.MAXIMIZE], experiment.board)
            except DuplicatedStudyError:
                study = storage.get_study_id_from_name(experiment.board)
            storage.set_study_user_attr(study, BOARD, _label(experiment))
        return cls(place, experiment, storage=storage, study=study)

    @classmethod
    def join(cls, place: Path | str, experiment: Experiment, storage: BaseStorage) -> TaskBoard | None:
        """Return the board in an open storage; ``None`` where the search has not made it yet.

        Raises:
            RunError: it is of other weights or another version, or the file is of another experiment.
        """
        names = board_names(storage)
        if experiment.board not in names:
            if isinstance(place, Path) and names:
                raise RunError(
                    f"{place}: holds the tasks of another experiment ({names[0]}, not {experiment.board}); "
                    "choose another run folder"
                )
            return None
        study = storage.get_study_id_from_name(experiment.board)
        label = storage.get_study_user_attrs(study).get(BOARD)
        if label is None:
            return None
        _demand_same(place, found=label, ours=_label(experiment))
        return cls(place, experiment, storage=storage, study=study)

    def reopened(self) -> TaskBoard:
        """Return this board after it was lost, with nothing on it."""
        if isinstance(self.place, str):
            self.close()
        storage = self.open_again()
        return self._call(lambda: TaskBoard.open(self.place, self.experiment, storage))

    def open_again(self) -> BaseStorage:
        """Return the storage, opened once more."""
        return open_storage(self.place) if isinstance(self.place, str) else self._storage

    def close(self) -> None:
        """Close the storage."""
        close_storage(self._storage)

    def post(self, work: Work) -> None:
        """Put up ``work`` for a worker to claim."""
        content = {"work": work.to_dict(), "board": self.experiment.board}
        template = create_trial(state=TrialState.WAITING, user_attrs=content)
        self._call(lambda: self._storage.create_new_trial(self._study, template))

    def tasks(self, *states: State, but: Container[int] = ()) -> list[Task]:
        """Return the tasks in one of ``states``, or all, in the order in which they were put up.

        Args:
            but: identities of tasks that are left out, which saves time where most are.
        """
        wanted = tuple(TrialState[state.value] for state in states) or None

        def read() -> list[FrozenTrial]:
            # A server in memory that was started anew may have given another board this number.
            if self._storage.get_study_name_from_id(self._study) != self.experiment.board:
                raise KeyError
            return self._storage.get_all_trials(self._study, deepcopy=False, states=wanted)

        trials = [trial for trial in self._call(read) if trial._trial_id not in but]
        return [_task(trial) for trial in trials if "work" in trial.user_attrs]

    def claim(self, task: Task, worker: str) -> bool:
        """Return whether ``task`` was waiting and is now ``worker``'s."""

        def take() -> bool:
            if not self._storage.set_trial_state_values(task.identity, TrialState.RUNNING):
                return False
            self._storage.set_trial_user_attr(task.identity, "worker", worker)
            return True

        return self._ending(take)

    def finish(self, task: Task, score: Score) -> bool:
        """Write the score of a task; return whether it was still wanted from this worker."""

        def tell() -> bool:
            told = {"work": task.name, **score.to_dict()}
            self._storage.set_trial_user_attr(task.identity, "score", told)
            return self._storage.set_trial_state_values(task.identity, TrialState.COMPLETE, [score.faulty])

        return self._ending(tell)

    def end(self, task: Task, reason: str = "", *, failed: bool = False) -> bool:
        """End a task without a score; return whether it had not ended before.

        Args:
            reason: why, for whoever looks at the board.
            failed: whether scoring it went wrong, rather than being broken off.
        """

        def give() -> bool:
            if reason:
                self._storage.set_trial_user_attr(task.identity, "failed" if failed else "returned", reason)
            return self._storage.set_trial_state_values(task.identity, TrialState.FAIL)

        return self._ending(give)

    def write(self, key: str, value: Any) -> None:
        """Write a remark on the board itself, such as a sign of life."""
        self._call(lambda: self._storage.set_study_user_attr(self._study, key, value))

    def remarks(self) -> Mapping[str, Any]:
        """Return all remarks."""
        return self._call(lambda: self._storage.get_study_user_attrs(self._study))

    def _ending(self, step: Callable[[], bool]) -> bool:
        try:
            return self._call(step)
        except UpdateFinishedTrialError:
            return False

    def _call(self, step: Callable[[], Result]) -> Result:
        return patiently(step, self.place, sleep=self._sleep)


def patiently(step: Callable[[], Result], place: Path | str, *, sleep: Callable[[float], None]) -> Result:
    """Return what ``step`` returns, tried again for ``PATIENCE_SECONDS`` while the storage at ``place`` is away.

    Raises:
        BoardLost: the storage does not know what it is asked for.
        RunError: it was away for too long.
    """
    waited, pause = 0.0, 0.1
    while True:
        try:
            return step()
        except KeyError:
            raise BoardLost from None
        except Exception as error:
            if not is_outage(error):
                raise
            if waited >= PATIENCE_SECONDS:
                raise RunError(
                    f"storage {shown(place)}: has not answered for {waited:.0f} s ({type(error).__name__}); "
                    "the same command goes on when it does"
                ) from None
        sleep(pause)
        waited, pause = waited + pause, min(2 * pause, 5.0)


def board_names(storage: BaseStorage) -> list[str]:
    """Return the names of the boards in ``storage``."""
    return [study.study_name for study in storage.get_all_studies() if study.study_name.startswith("ftnas ")]


def _task(trial: FrozenTrial) -> Task:
    content = trial.user_attrs
    name = str(content["work"].get("name")) if isinstance(content["work"], dict) else ""
    return Task(trial._trial_id, name, State(trial.state.name), content.get("worker"), content)


def _label(experiment: Experiment) -> dict[str, Any]:
    return {"protocol": PROTOCOL, "ftnas": __version__, "supernet": experiment.supernet}


def _demand_same(place: Path | str, *, found: Any, ours: Mapping[str, Any]) -> None:
    """Refuse a board that is of another version or of other weights."""
    theirs = found if isinstance(found, dict) else {}
    if (theirs.get("protocol"), theirs.get("ftnas")) != (ours["protocol"], ours["ftnas"]):
        raise RunError(
            f"storage {shown(place)}: its tasks are of ftnas {theirs.get('ftnas')}, and this is ftnas {ours['ftnas']}; "
            "workers and search need the same version"
        )
    if theirs.get("supernet") != ours["supernet"]:
        raise RunError(
            f"storage {shown(place)}: its tasks are for other shared weights (supernet {theirs.get('supernet')}, here "
            f"{ours['supernet']}); copy supernet/ from the search's run folder, or choose another storage"
        )
