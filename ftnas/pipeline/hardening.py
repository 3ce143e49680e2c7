"""Hardening a trained net: protected, written as a net for every other command, measured before and after."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from ftnas import __version__, campaign
from ftnas.campaign import CONFIDENCE, ChipResult, Outcomes
from ftnas.campaign.estimates import DROP
from ftnas.campaign.intervals import student_interval
from ftnas.campaign.levels import levels_of
from ftnas.campaign.subject import model_hash
from ftnas.errors import HardeningError
from ftnas.export.weights import load_weights, save_weights
from ftnas.files import read_json, write_json
from ftnas.hardening.methods import HardeningOptions
from ftnas.hardening.overhead import Overhead, Size
from ftnas.hardening.passes import check_hardening, harden, under_hardened_names
from ftnas.hardening.vulnerability import LayerVulnerability, vulnerability_of
from ftnas.holding import OWN_FILES, holding, is_new
from ftnas.networks.hardened import protections_of
from ftnas.pipeline.analysis_steps import FILE, kept_steps
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.own_sources import SUFFIXES, keep_source, source_name, source_of
from ftnas.pipeline.progress import progress_bar
from ftnas.runtime import place

RECORD, WEIGHTS, CAMPAIGNS = "hardening.json", "net.safetensors", "campaigns"
SCHEMA = 1
CHIPS = 20
SOURCES = tuple(source_name(Path(WEIGHTS), suffix) for suffix in SUFFIXES)
WRITTEN_BEFORE = {WEIGHTS, Path(WEIGHTS).with_suffix(".json").name, *SOURCES, FILE}
NOT_WHOLE = (
    "the folder alone is no net, since torch cannot export this one: give FILE.py:NAME --weights with its "
    f"{WEIGHTS} to other commands"
)
STUDY = "campaign"


@dataclass(frozen=True, slots=True)
class Measured:
    """An accuracy before and after hardening, on the same chips but for what hits the copies.

    Attributes:
        faults: as texts; none for the nets without faults.
        before: mean over chips.
        after: the same of the hardened net.
        gain: how much more that is; ``low`` and ``high`` are the ends of its interval.
        low: see there.
        high: see there.
    """

    faults: tuple[str, ...]
    before: float
    after: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class HardenedNet:
    """A net that was hardened.

    Attributes:
        net: the hardened one.
        folder: that holds it.
        content: what ``hardening.json`` says: options, plan, overhead, accuracies.
        overhead: what it costs.
        accuracies: without faults, then at each rate.
        note: what to tell of the choice of channels; empty where there is nothing.
    """

    net: Checkpoint
    folder: Path
    content: Mapping[str, Any]
    overhead: Overhead
    accuracies: tuple[Measured, ...]
    note: str


def harden_net(
    net: Checkpoint,
    options: HardeningOptions,
    out: Path,
    *,
    faults: Sequence[str] = (),
    chips: int = CHIPS,
    workers: int = 1,
    batch_size: int | None = None,
) -> HardenedNet:
    """Harden ``net``, write it into the folder ``out``, and measure both on the test images.

    The same call goes on where an earlier one was cut off. What is analysed and calibrated on are training images.

    Args:
        net: what is hardened.
        options: how.
        out: for the hardened net, which every command that takes a net then takes, and for what was measured.
        faults: what both are measured under, and what decides by which rule copies are merged; none is allowed.
        chips: of the measurement.
        workers: threads.
        batch_size: images of one forward pass.

    Raises:
        HardeningError: nothing can be protected as asked, or ``out`` holds something else.
        FaultError: a fault is impossible.
    """
    levels = levels_of(list(faults), None) if faults else ()
    check_hardening(net.model, net.data.train_images, options, faults=levels[0].faults if levels else ())
    with holding(out, RECORD, *WRITTEN_BEFORE):
        return _harden(net, options, out, faults=faults, chips=chips, workers=workers, batch_size=batch_size)


def _harden(
    net: Checkpoint,
    options: HardeningOptions,
    out: Path,
    *,
    faults: Sequence[str],
    chips: int,
    workers: int,
    batch_size: int | None,
) -> HardenedNet:
    levels = levels_of(list(faults), None) if faults else ()
    identity = {
        "schema": SCHEMA,
        "net": net.name,
        "hash": model_hash(net.model),
        "options": {**asdict(options), "ratios": list(options.ratios)},
        "faults": list(faults),
    }
    known = _earlier(out, identity)
    content = known or _hardened(net, options, out, faults=levels[0].faults if levels else (), identity=identity)
    hardened = _loaded(net, out)
    earlier = protections_of(net.model)
    new = [path for path, one in protections_of(hardened).items() if path not in earlier and one.method != "bound"]
    before = under_hardened_names(net.model, new)
    measured = _measured(net, before, hardened, out, faults=faults, chips=chips, workers=workers, batch_size=batch_size)
    content = {**content, "chips": chips, "accuracies": [asdict(one) for one in measured]}
    write_json(out / RECORD, content)
    overhead = Overhead(*(Size(**content["overhead"][which]) for which in ("before", "after")))
    source = source_of(out / WEIGHTS)
    found = Checkpoint(
        f"{net.name}-{options.method}", hardened, net.data, origin=str(out), spec=net.spec, source=source
    )
    return HardenedNet(found, out, content, overhead, measured, content["note"])


def _hardened(
    net: Checkpoint, options: HardeningOptions, out: Path, *, faults: Sequence[Any], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Harden ``net``, write it, and return what is known of it."""

    def analyse(model: nn.Module, images: Tensor) -> Mapping[str, LayerVulnerability]:
        with kept_steps(out, model, images, estimator="default", title="vulnerability") as steps:
            return vulnerability_of(model, images, steps=steps)

    found = harden(net.model, net.data.train_images, options, faults=list(faults), analyse=analyse)
    facts = {
        "ftnas": __version__,
        "torch": torch.__version__,
        "source": f"{net.name}-{options.method}",
        "data": net.data.name,
        "chip": "fault-free",
    }
    overhead = {"before": found.overhead.before.to_dict(), "after": found.overhead.after.to_dict()}
    content = {
        **identity,
        "versions": {"ftnas": __version__, "torch": torch.__version__},
        "plan": {path: protection.to_dict() for path, protection in found.plan.items()},
        "overhead": {**overhead, "shares": dict(found.overhead.shares)},
        "note": found.unchecked,
    }
    spec = keep_source(net, out / WEIGHTS) if net.spec is None else net.spec
    if spec is None:
        content["note"] = " ".join(filter(None, (found.unchecked, NOT_WHOLE)))
    save_weights(out / WEIGHTS, found.model, spec, facts=facts)
    write_json(out / RECORD, content)
    return content


def _loaded(net: Checkpoint, out: Path) -> nn.Module:
    """Return the net that ``out`` holds, where that of ``net`` is."""
    device = next(net.model.parameters()).device
    own = None if net.spec is not None else copy.deepcopy(net.model).cpu()
    return place(load_weights(out / WEIGHTS, model=own), device)


def _measured(
    net: Checkpoint,
    before: nn.Module,
    after: nn.Module,
    out: Path,
    *,
    faults: Sequence[str],
    chips: int,
    workers: int,
    batch_size: int | None,
) -> tuple[Measured, ...]:
    labels = net.data.test_labels
    if not faults:
        clean = [campaign.accuracy(model, net.data.test_images, labels) for model in (before, after)]
        return (_pair((), clean[:1], clean[1:]),)
    results = [
        campaign.run(
            model,
            (net.data.test_images, labels),
            list(faults),
            chips=chips,
            out=out / CAMPAIGNS / name,
            study=STUDY,
            batch_size=campaign.BATCH_SIZE if batch_size is None else batch_size,
            workers=workers,
            progress=lambda title, steps, name=name: progress_bar(f"{name}: {title}", steps),  # type: ignore[misc]
        )
        for name, model in (("before", before), ("after", after))
    ]
    one, other = results
    rates = [
        _pair(rate.faults, accuracies_of_chips(one, index), accuracies_of_chips(other, index))
        for index, rate in enumerate(one.rates)
    ]
    return (_pair((), [one.accuracy], [other.accuracy]), *rates)


def accuracies_of_chips(result: ChipResult, index: int) -> list[float]:
    """Return the accuracy of each chip at the rate with this ``index``."""
    outcomes = [Outcomes(**unit["rates"][index]["images"]) for unit in result.units]
    return [(outcome.correct_after or 0) / outcome.images for outcome in outcomes]


def _pair(faults: Sequence[str], before: Sequence[float], after: Sequence[float]) -> Measured:
    gains = [late - early for early, late in zip(before, after, strict=True)]
    if faults:
        interval = student_interval(gains, CONFIDENCE, bounds=DROP)
        ends = interval.low, interval.high
    else:
        ends = gains[0], gains[0]  # of all test images, not of a sample of chips
    return Measured(tuple(faults), fmean(before), fmean(after), fmean(gains), *ends)


def _earlier(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what ``out`` says of the same hardening; ``None`` where it says nothing.

    Raises:
        HardeningError: it holds something else.
    """
    if is_new(out):
        return None
    if not (out / RECORD).exists():
        # A kill before the record leaves these alone.
        if out.is_dir() and {file.name for file in out.iterdir() if file.name not in OWN_FILES} <= WRITTEN_BEFORE:
            return None
        raise HardeningError(f"{out}: exists and holds no hardened net; choose another with --out")
    content: dict[str, Any] = read_json(out / RECORD)
    differing = [key for key, value in identity.items() if content.get(key) != value]
    if differing:
        raise HardeningError(f"{out}: holds another hardened net (other {', '.join(differing)}); choose another --out")
    return content
