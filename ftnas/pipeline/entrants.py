"""The nets of a comparison: what each name means, and how that net comes to its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import nn

from ftnas.cost import measure
from ftnas.data import Dataset
from ftnas.errors import ModelError
from ftnas.importing.python_file import is_class
from ftnas.networks import BASELINES
from ftnas.pipeline.checkpoints import find_training
from ftnas.pipeline.comparison import SHORT, baseline_job, width_for
from ftnas.pipeline.config import CompareConfig, SizeKind, TrainingKind
from ftnas.pipeline.failures import is_finite
from ftnas.pipeline.jobs import TrainingJob, build_model, own_spec
from ftnas.pipeline.nets import OwnNet, float_net, load_net, own_net, quantised_net
from ftnas.pipeline.run_folder import ComparisonFolder, Workplace, is_workplace
from ftnas.pipeline.trained import MODEL, read_job
from ftnas.pipeline.training import check_own_net
from ftnas.runtime import choose_device, place
from ftnas.untrusted import understood

Family = Literal["winner", "baseline", "own"]
FAMILIES: Mapping[str, Family] = {
    "winner": "winner",
    "baseline": "baseline",
}  # of a training; others are the user's own


@dataclass(frozen=True, eq=False)
class Entrant:
    """A net of a comparison.

    Attributes:
        name: unlike that of any other; of the folders that it leaves.
        label: what people read.
        family: where it comes from.
        size: whether its width was chosen to cost as much as the first net.
        origin: how it comes to its weights, in one line.
        job: its training; ``None`` for a net that is taken as it is.
        model: the net that is taken as it is, quantised, in evaluation mode.
    """

    name: str
    label: str
    family: Family
    size: SizeKind
    origin: str
    job: TrainingJob | None = None
    model: nn.Module | None = None

    @property
    def training(self) -> str:
        """How it was trained for the comparison; ``given`` if it was not."""
        return "given" if self.job is None else self.job.training


def entrants_of(work: ComparisonFolder, data: Dataset) -> list[Entrant]:
    """Return the nets of ``work.config``, the first one first; what is taken as it is, is read.

    Raises:
        FtnasError: a net is not there, is not whole or does not fit ``data``.
    """
    first = _entrants(work, data, work.config.nets[0], flops=None)
    flops = measure(_fresh(work, first[0], data), data.image_shape).flops
    others = [e for text in work.config.nets[1:] for e in _entrants(work, data, text, flops=flops)]
    return _named_apart([*first, *others])


def _fresh(work: ComparisonFolder, entrant: Entrant, data: Dataset) -> nn.Module:
    """Return the net, untrained if that is yet to come."""
    if entrant.model is not None:
        return entrant.model
    assert entrant.job is not None
    return build_model(work, entrant.job.model, data, seed=entrant.job.seed)


def _entrants(work: ComparisonFolder, data: Dataset, text: str, *, flops: int | None) -> list[Entrant]:
    """Return the nets that ``text`` means; ``flops`` are those of the first net, ``None`` for that itself."""
    if text in BASELINES:
        return _baselines(work, data, text, flops=flops)
    own = own_net(text)
    if own is not None and own.name and is_class(own.file, own.name):
        return _classes(work, data, own)
    given = _given(work.config, data, text, own)
    if given.model is not None and not is_finite(given.model):
        raise ModelError(f"{text}: has weights that are not finite; was its training one that diverged?")
    return [given]


def _baselines(work: ComparisonFolder, data: Dataset, name: str, *, flops: int | None) -> list[Entrant]:
    sizes: Sequence[SizeKind] = ("own",) if flops is None else work.config.sizes
    widths = {size: width_for(name, flops, data) if size == "scaled" and flops else 1.0 for size in sizes}
    return [
        _trained(work, baseline_job(work, name, width, numbers=numbers, size=size, training=training))
        for size, width in widths.items()
        for numbers in work.config.numbers
        for training in work.config.trainings
    ]


def _classes(work: ComparisonFolder, data: Dataset, own: OwnNet) -> list[Entrant]:
    check_own_net(own, data, bits=work.config.bits, config=work.config)
    return [_trained(work, _own_job(work.config, own, training)) for training in work.config.trainings]


def _own_job(config: CompareConfig, own: OwnNet, training: TrainingKind) -> TrainingJob:
    return TrainingJob(
        name=f"{own.name}-{SHORT[training]}",
        label=own.label,
        family="own",
        model=own_spec(own.file, own.name, bits=config.bits),
        training=training,
        size="own",
        part="whole",
        epochs=config.training.epochs,
        chips=config.campaign.chips,
        rates=(),
        seed=config.seed,
    )


def _trained(work: ComparisonFolder, job: TrainingJob) -> Entrant:
    """Return the net that ``job`` trains. It measures no chips: all nets of a comparison are measured in one way."""
    origin = f"trained here, {_in_words(job.training, job.epochs, work)}"
    return Entrant(job.name, job.label, FAMILIES.get(job.family, "own"), job.size, origin, job=replace(job, rates=()))


def _given(config: CompareConfig, data: Dataset, text: str, own: OwnNet | None) -> Entrant:
    device = choose_device(config.device)
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")
    if own is not None:
        model = float_net(own, data, seed=config.seed)
        net = quantised_net(model, data, name=own.label, origin=text, bits=config.bits, device=config.device)
        origin = f"taken from {text}, quantised to {config.bits} bits"
        return Entrant(name, own.label, "own", "own", origin, model=net.model)
    directory = None if config.data.directory is None else Path(config.data.directory)
    net = load_net(text, data=config.data.name, data_directory=directory)
    model = place(net.model, device)
    if not (Path(text) / "model.json").exists() and not is_workplace(Path(text)):
        return Entrant(name, text, "own", "own", f"taken from {net.origin}", model=model)
    work, home = find_training(Path(text))
    job = read_job(home)
    with understood(home / MODEL):
        origin = f"taken from {home}, {_in_words(job['training'], job['epochs'], work)}"
        return Entrant(name, text, FAMILIES.get(job["family"], "own"), job["size"], origin, model=model)


def _in_words(training: TrainingKind, epochs: int, work: Workplace) -> str:
    """Return how a net was trained."""
    under = f" under {' + '.join(map(str, work.config.faults))}" if training == "fault-tolerant" else ""
    return f"{training}{under}, {epochs} epoch{'s' * (epochs != 1)}"


def _named_apart(entrants: Sequence[Entrant]) -> list[Entrant]:
    """Return ``entrants`` with a number behind every name that an earlier one has."""
    found: dict[str, Entrant] = {}
    for entrant in entrants:
        number, name = 1, entrant.name
        while name in found:
            number += 1
            name = f"{entrant.name}-{number}"
        job = None if entrant.job is None else replace(entrant.job, name=name)
        found[name] = replace(entrant, name=name, job=job)
    return list(found.values())
