"""When a training saves its progress: at the end of epochs, each minute, and when it is asked to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ftnas import stopping
from ftnas.distributed import any_of, average_, check_equal, first_does, ranks
from ftnas.training.checkpoints import Optimizers, has_checkpoint, load_checkpoint, save_checkpoint

SECONDS_BETWEEN_SAVES = 60.0
# A save at the end of an epoch waits until so many times what the last one took are over, so that saving takes at most
# 2 % of the time: that of the digits supernet takes 30 ms, where an epoch takes 1.3 s.
REST = 50

Progress = Callable[[], Mapping[str, Any]]


class Saving:
    """Keeps the progress of a training in a file: what a kill takes is at most one minute or one epoch.

    Of processes that train together the first one writes, all read, and what one is asked to stop all do.

    Args:
        path: of the checkpoint; without one nothing is kept, and a request to stop still ends the training.
        model: with its statistics.
        optimizers: by the names that they have in the file.
        is_sound: whether the model is worth keeping; asked in the middle of epochs only.
    """

    def __init__(
        self,
        path: Path | None,
        model: nn.Module,
        optimizers: Optimizers,
        *,
        is_sound: Callable[[], bool] = lambda: True,
    ) -> None:
        self._path, self._model, self._optimizers, self._is_sound = path, model, optimizers, is_sound
        self._saved = time.monotonic()
        self._cost = 0.0

    def load(self) -> Mapping[str, Any]:
        """Put model and optimisers back to where the file stands and return the progress; empty without a file.

        Raises:
            RunError: the file is damaged, or of another model.
            TrainingError: of processes that train together not all find the same file.
        """
        progress: dict[str, Any] = {}

        def read() -> None:
            if self._path is not None and has_checkpoint(self._path):
                progress.update(load_checkpoint(self._path, self._model, self._optimizers))

        first_does(read)  # which may set a damaged file aside
        if not ranks().is_first:
            read()
        check_equal(f"{self._path}: epochs done", len(progress.get("records", [])))
        check_equal(f"{self._path}: steps done", sum((progress.get("epoch") or {"steps": {}})["steps"].values()))
        return progress

    def after_step(self, progress: Progress, *, at: str) -> None:
        """Save if that is due in the middle of an epoch; end the training if a signal asks for it.

        Raises:
            Stopped: it does, and what was done is saved.
        """
        asked = any_of(stopping.stop_asked())
        if (asked or self._passed() >= SECONDS_BETWEEN_SAVES) and self._is_sound():
            self._save(progress())
        if asked:
            _stop(at)

    def after_epoch(self, progress: Progress, *, at: str, must: bool) -> None:
        """Save if that is due, or a ``must``; end the training if a signal asks for it.

        Raises:
            Stopped: it does, and what was done is saved.
        """
        asked = any_of(stopping.stop_asked())
        if must or asked or self._passed() >= min(REST * self._cost, SECONDS_BETWEEN_SAVES):
            self._save(progress())
        if asked:
            _stop(at)

    def _passed(self) -> float:
        return time.monotonic() - self._saved

    def _save(self, progress: Mapping[str, Any]) -> None:
        if self._path is None or not ranks().is_first:
            return
        began = time.monotonic()
        save_checkpoint(self._path, self._model, self._optimizers, progress)
        self._saved = time.monotonic()
        self._cost = self._saved - began


def _stop(at: str) -> NoReturn:
    """End the training here, also where it is another process that a signal has asked."""
    stopping.check(at)
    raise stopping.Stopped(signal.SIGTERM, at)


class EpochSoFar:
    """The part of an epoch that is done: for each of its passes over images the steps, and sums of their values.

    Args:
        kept: what ``to_dict`` gave; without it the epoch is yet to begin.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        self._began = time.monotonic()
        self._seconds: float = kept["seconds"] if kept else 0.0
        self._steps: dict[str, int] = dict(kept["steps"]) if kept else {}
        sums = kept["sums"] if kept else {}
        self._sums = {name: torch.tensor(values, dtype=torch.float64) for name, values in sums.items()}

    @property
    def seconds(self) -> float:
        """How long the epoch has taken, what was before a pause included."""
        return self._seconds + time.monotonic() - self._began

    def steps(self, name: str) -> int:
        """Return how many steps of the pass ``name`` are done."""
        return self._steps.get(name, 0)

    def add(self, name: str, values: Tensor) -> None:
        """Count a step of the pass ``name`` with its ``values``, of which processes that share it take the mean.

        They stay where they are: nobody waits for a GPU before the epoch's end.
        """
        average_([values])
        self._steps[name] = self.steps(name) + 1
        sums = self._sums.get(name)
        self._sums[name] = values.double() if sums is None else sums.to(values.device) + values.double()

    def means(self, name: str) -> list[float]:
        """Return the means over the steps of the pass ``name``, which has taken some."""
        means: list[float] = (self._sums[name] / self._steps[name]).tolist()
        return means

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, from which the same is made again."""
        sums = {name: values.tolist() for name, values in self._sums.items()}
        return {"seconds": self.seconds, "steps": dict(self._steps), "sums": sums}
