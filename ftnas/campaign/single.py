"""Campaigns of single faults: what one faulty weight bit does, over all bits of a stated population.

The unit is the fault. Each is injected alone, before all images, by late start (see ``late_start``); what is
estimated is the share of (fault, image) pairs whose answer changes, over the whole population and stratum by stratum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import torch
from torch import Tensor, nn

from ftnas.campaign.engine import Progress, Shard, folder_of, open_campaign
from ftnas.campaign.late_start import LateStart
from ftnas.campaign.outcomes import Outcomes, outcomes
from ftnas.campaign.population import By, Population
from ftnas.campaign.records import SCHEMA, Content
from ftnas.campaign.sample_size import CONFIDENCE
from ftnas.campaign.samples import Allocation, FaultUnit, Sampling, sample
from ftnas.campaign.strata import SingleResult, check_share, single_result
from ftnas.campaign.subject import Logits, Subject, as_array, tensors_hash, undisturbed
from ftnas.errors import CampaignError
from ftnas.faults import Injection, explicit_plan
from ftnas.faults import sites as fault_sites
from ftnas.quantization import FixedPoint, QuantizedLayer, tapped

BATCH_SIZE = 128
# Faults that share a fault-free pass of each batch. It costs them 1/64 of a pass each; a kill loses as many.
CHUNK = 64


def run_single(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    sites: str = "*",
    kinds: Sequence[str] = ("flip",),
    by: By = "network",
    margin: float | None = None,
    n: int | None = None,
    allocation: Allocation | None = None,
    pilot: int | None = None,
    exhaustive: bool = False,
    critical: float = 0.01,
    confidence: float = CONFIDENCE,
    golden: nn.Module | None = None,
    out: Path | str | None = None,
    study: str = "campaign",
    batch_size: int = BATCH_SIZE,
    workers: int = 1,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> SingleResult:
    """Inject single faults into the weights of ``model``, and change nothing of the caller's.

    How many is said by exactly one of ``margin``, ``n`` and ``exhaustive``.

    Args:
        model: with quantised layers (see ``faults.quantize``).
        data: images ``[N, ...]`` and labels ``[N]``.
        sites: which weights, as in ``faults.sites``.
        kinds: what happens to a bit: ``flip``, ``stuck_at_0``, ``stuck_at_1``; each is a fault of its own.
        by: the strata, each with a result of its own: ``network`` (one), ``layer``, ``bit`` or ``layer_bit``.
        margin: faults are added until the share of changed answers is known to within this in every stratum.
        n: so many faults in all.
        allocation: of ``n`` over the strata. ``bits`` gives more to bits of more worth, Neyman's rule with deviations
            in proportion to 2^bit; ``neyman`` first injects a pilot, then more where faults differ more;
            ``proportional`` goes by size. By default ``bits`` where strata have one bit each and weights are
            integers, which needs a half to a quarter of the faults that others need, else ``neyman``.
        pilot: faults of each stratum in the pilot, or before the first look at a margin.
        exhaustive: every fault of the population.
        critical: a fault is critical that changes at least this share of the images.
        confidence: of the intervals.
        golden: what faulty answers are compared with; by default ``model`` without faults.
        out: a folder for the records; a later call goes on with what is there.
        study: decides which faults are drawn.
        batch_size: images of one forward pass; memory grows with it (see ``late_start``).
        workers: threads.
        shard: do only a part of the faults. A call without it joins what shards left in ``out``.
        progress: shows how far it is.

    Raises:
        CampaignError: an argument is impossible, or ``out`` holds another campaign or is damaged.
        FaultError: the model has no fault sites, or no name matches ``sites``.
    """
    subject = Subject(model, *data, batch_size=batch_size)
    population = population_of(model, sites, kinds)
    check_share(critical)
    sampling = Sampling(by, margin, n, allocation, pilot, exhaustive, confidence, sharded=shard is not None)
    sampling = _with_allocation(sampling, are_integers=_are_integers(model, sites))
    with undisturbed(model, golden):
        reference = None if golden is None else tensors_hash(golden)
        header = {"schema": SCHEMA, "campaign": "single faults", "golden": reference, **subject.describe()}
        attack = _Attack(subject, subject.logits(golden))
        with open_campaign(
            folder_of(out), header, attack.work, chunk=CHUNK, workers=workers, shard=shard, progress=progress
        ) as engine:
            samples = sample(population, sampling, engine, study=study)
    accuracy = float((attack.golden.argmax(1) == subject.answers()).mean())
    return single_result(
        header | {"study": study, "sites": sites}, population, sampling, samples, critical=critical, accuracy=accuracy
    )


def _with_allocation(sampling: Sampling, *, are_integers: bool) -> Sampling:
    """Return ``sampling`` with the allocation that is best where none was asked for."""
    if sampling.allocation == "bits" and not are_integers:
        raise CampaignError("allocation: 'bits' needs integer weights; a float word's bits are not worth 2^bit")
    if sampling.n is None or sampling.allocation is not None:
        return sampling
    by_bits = sampling.is_by_bit and sampling.pilot is None and are_integers
    return replace(sampling, allocation="bits" if by_bits else "neyman")


def _are_integers(model: nn.Module, pattern: str) -> bool:
    found = fault_sites(model, pattern)
    return all(isinstance(site.number, FixedPoint) for site in found if site.kind == "weight")


def population_of(model: nn.Module, pattern: str = "*", kinds: Sequence[str] = ("flip",)) -> Population:
    """Return all single faults of the weights whose site's name matches ``pattern``.

    Raises:
        CampaignError: it matches outputs only, or a kind is unknown.
        FaultError: it matches nothing.
    """
    found = [site for site in fault_sites(model, pattern) if site.kind == "weight"]
    if not found:
        raise CampaignError(f"sites: {pattern!r} matches no weight; single faults are those of weights")
    return Population(tuple((site.name, site.values, site.bits) for site in found), tuple(kinds))


class _Attack:
    """What single faults go through.

    Attributes:
        golden: logits ``[N, K]`` that faulty ones are compared with.
    """

    def __init__(self, subject: Subject, golden: Logits) -> None:
        self.golden = golden
        self._subject, self._labels = subject, subject.answers()
        self._layers = dict(subject.model.named_modules())
        _, example = next(subject.batches())
        self._late = LateStart(subject.model, example)

    def work(self, units: Sequence[FaultUnit], check: Callable[[], None]) -> list[Content]:
        """Return the records of ``units``: batches outside, faults inside, in the order of their layers."""
        taps = [self._injection(unit) for unit in units]
        effective = [self._is_effective(unit, tap) for unit, tap in zip(units, taps, strict=True)]
        counted: list[list[Outcomes]] = [[] for _ in units]
        for place, x in self._subject.batches() if units else ():
            golden = self._late.golden(x)
            for index, unit in enumerate(units):
                check()
                logits = golden.logits
                if effective[index]:
                    logits = golden.logits_with(taps[index], self._layer(unit))
                counted[index].append(outcomes(self.golden[place], as_array(logits), self._labels[place]))
        return [_record(*parts) for parts in zip(units, effective, counted, strict=True)]

    def _layer(self, unit: FaultUnit) -> QuantizedLayer:
        layer = self._layers[unit.flip.site.removesuffix("weight").removesuffix(".")]
        if not isinstance(layer, QuantizedLayer):
            raise CampaignError(f"{unit.flip.site}: is no quantised layer any more")
        return layer

    def _injection(self, unit: FaultUnit) -> Injection:
        model = self._subject.model
        return Injection(model, explicit_plan(model, [unit.flip]), first_image=0, gradient="masked")

    @torch.no_grad()
    def _is_effective(self, unit: FaultUnit, tap: Injection) -> bool:
        """Return whether the fault changes a code: a bit stuck at what it is needs no forward pass."""
        if unit.flip.kind == "flip":
            return True
        layer = self._layer(unit)
        with tapped(tap):
            layer.quantized_weight(layer.weight, layer.quantization)
        return tap.counts[unit.flip.site].effective > 0


def _record(unit: FaultUnit, effective: bool, batches: Sequence[Outcomes]) -> Content:
    flip = unit.flip
    images = reduce(add, batches)
    where = {"unit": unit.name, "site": flip.site, "element": flip.element, "bit": flip.bit, "kind": flip.kind}
    return where | {"effective": effective, "images": images.to_dict()}
