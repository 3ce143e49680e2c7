"""What spiking graphs are evolved for: small classifications that come with scikit-learn, and balancing a pole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.data.digits import read_digits
from ftnas.data.splitting import draw_stratified
from ftnas.errors import SpikingError
from ftnas.runtime import keyed_generator
from ftnas.spiking.graph.batch import NetworkBatch
from ftnas.spiking.graph.encoding import Encoding, encoded, scaled
from ftnas.spiking.graph.pole import PoleBalancing
from ftnas.spiking.graph.simulator import answers, spike_counts

Split = Literal["train", "test"]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

TEST_SHARE = 0.3


class Task(Protocol):
    """What nets can be scored on."""

    @property
    def name(self) -> str:
        """The name by which it is chosen."""

    @property
    def inputs(self) -> int:
        """Input neurons that a net needs."""

    @property
    def outputs(self) -> int:
        """Output neurons that a net needs."""

    def scores(self, batch: NetworkBatch, split: Split) -> NDArray[np.float64]:
        """Return how good each net is, ``[nets]``, 0 to 1."""

    def example(self, number: int) -> Floats:
        """Return the spikes ``[steps, inputs]`` of a test sample, to be shown."""


@dataclass(frozen=True)
class Classification:
    """Samples as spikes ``[steps, inputs, N]`` with their classes ``[N]``; the answer is the output that fires most."""

    name: str
    classes: int
    train: tuple[Floats, Labels]
    test: tuple[Floats, Labels]

    @property
    def inputs(self) -> int:
        """Two for each feature."""
        return int(self.train[0].shape[1])

    @property
    def outputs(self) -> int:
        """One for each class."""
        return self.classes

    def scores(self, batch: NetworkBatch, split: Split) -> NDArray[np.float64]:
        """Return the share of samples that each net answers rightly, ``[nets]``."""
        spikes, labels = self.train if split == "train" else self.test
        return np.asarray((answers(spike_counts(batch, spikes)) == labels).mean(axis=1))

    def example(self, number: int) -> Floats:
        """Return the spikes ``[steps, inputs]`` of test sample ``number``.

        Raises:
            SpikingError: there are not so many.
        """
        last = self.test[0].shape[2] - 1
        if not 0 <= number <= last:
            raise SpikingError(f"sample {number}: {self.name} has test samples 0 to {last}")
        return np.asarray(self.test[0][:, :, number])


def _from_scikit_learn(name: str, encoding: Encoding) -> Classification:
    """Return a data set of scikit-learn, 30 % of each class for the test, the same ones in every run."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    labels = found.target.astype(np.int64)
    count = round((1 - TEST_SHARE) * len(labels))
    rng = keyed_generator("spiking task", name)
    train, test = (part.numpy() for part in draw_stratified(torch.from_numpy(labels), count, rng))
    return _classification(name, (found.data[train], labels[train]), (found.data[test], labels[test]), encoding)


def _digits(name: str, encoding: Encoding) -> Classification:
    """Return the 8x8 digits, split as in every other search."""
    found = read_digits(None)
    train, test = (
        images.reshape(len(images), -1).astype(np.float64) for images in (found.train_images, found.test_images)
    )
    return _classification(name, (train, found.train_labels), (test, found.test_labels), encoding)


def _classification(
    name: str, train: tuple[Any, Labels], test: tuple[Any, Labels], encoding: Encoding
) -> Classification:
    """Return features as spikes; the range of each is that of the training samples."""
    low, high = train[0].min(axis=0), train[0].max(axis=0)
    (first, first_labels), (second, second_labels) = train, test
    return Classification(
        name,
        int(first_labels.max()) + 1,
        (encoded(scaled(first, low, high), encoding), first_labels),
        (encoded(scaled(second, low, high), encoding), second_labels),
    )


def _pole(name: str, encoding: Encoding) -> PoleBalancing:
    return PoleBalancing(name, encoding)


TASKS: Mapping[str, Callable[[str, Encoding], Task]] = {
    "iris": _from_scikit_learn,
    "wine": _from_scikit_learn,
    "breast_cancer": _from_scikit_learn,
    "digits": _digits,
    "pole_balancing": _pole,
}


def load_task(name: str, encoding: Encoding) -> Task:
    """Return the task called ``name``, its features encoded as ``encoding`` says.

    Raises:
        SpikingError: there is no such task.
    """
    if name not in TASKS:
        raise SpikingError(f"task {name!r} is unknown; choose from {', '.join(TASKS)}")
    return TASKS[name](name, encoding)


def demand_fit(inputs: int, outputs: int, task: Task, source: str) -> None:
    """Refuse a net that has not the inputs and outputs that ``task`` needs; ``source`` begins the message.

    Raises:
        SpikingError: it has not.
    """
    for what, given, needed in (("inputs", inputs, task.inputs), ("outputs", outputs, task.outputs)):
        if given != needed:
            raise SpikingError(f"{source}: {what}: the task {task.name} needs {needed}, got {given}")
