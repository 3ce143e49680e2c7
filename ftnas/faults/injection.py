"""Injecting faults into the forward passes of a model, for as long as a ``with`` block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults.applying import apply_, replace_value
from ftnas.faults.chips import Chip, SitePlan, applies_to
from ftnas.faults.codes import Effect, effect_of
from ftnas.faults.models import Fault, Target, parse_faults
from ftnas.faults.plans import Plan, check_plan
from ftnas.faults.sites import Site, is_at, layer_paths, output_site, weight_site
from ftnas.quantization import FixedPoint, QuantizedLayer, current_tap, tapped

Gradient = Literal["masked", "straight_through"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many faults met one site.

    Attributes:
        planned: parts that fail.
        applied: those of them in tensors that were computed. A weight's are counted once, however many forward
            passes read it; those of outputs once for each pass.
        effective: values whose code changed.
    """

    planned: int
    applied: int
    effective: int


class Injection:
    """The tap that ``inject`` opens.

    Attributes:
        first_image: which image of the data set the next batch begins with; may be set between forward passes.
    """

    def __init__(self, model: nn.Module, source: Chip | Plan, *, first_image: int, gradient: Gradient) -> None:
        self.first_image = first_image
        self._model, self._source, self._gradient = model, source, gradient
        self._paths: _Paths = _Paths(model)
        self._weight_faults = _active(source, "weights")
        self._feature_faults = _active(source, "features")
        self._weight_effects: dict[tuple[str, int], list[_Hit]] = {}
        self._applied: dict[tuple[str, int], int] = {}
        self._effective: dict[tuple[str, int], Tensor] = {}

    @property
    def counts(self) -> dict[str, Count]:
        """Counts so far, by site."""
        planned = dict(self._applied)
        if isinstance(self._source, Plan):
            planned = {key: len(plan) for key, plan in self._source.sites.items()}
        return {name: self._count(name, planned) for name, _ in planned}

    def _count(self, name: str, planned: Mapping[tuple[str, int], int]) -> Count:
        keys = [key for key in planned if key[0] == name]
        return Count(
            planned=sum(planned[key] for key in keys),
            applied=sum(self._applied.get(key, 0) for key in keys),
            effective=sum(int(self._effective[key]) for key in keys if key in self._effective),
        )

    def weight(self, layer: nn.Module, weight: Tensor, number: FixedPoint) -> Tensor:
        """Return ``weight`` with the chip's faults."""
        path = self._paths.find(layer) if self._weight_faults else None
        if path is None or not isinstance(layer, QuantizedLayer):
            return weight
        hits = self._weight_hits(weight_site(path, layer, number), number)
        if not hits:
            return weight
        faulty = weight.detach().clone()
        for hit in hits:
            self._effective[hit.key] = apply_(faulty, hit.fault, hit.effect, number=number, clean=weight)
        masked = [hit.effect.element for hit in hits] if self._gradient == "masked" else []
        return replace_value(weight, faulty, masked=masked)

    def output(self, layer: nn.Module, features: Tensor, number: FixedPoint) -> None:
        """Put the chip's faults into ``features`` ``[N, ...]``."""
        path = self._paths.find(layer) if self._feature_faults else None
        if path is None or not isinstance(layer, QuantizedLayer):
            return
        site = output_site(path, layer, number, tuple(features.shape[1:]))
        images = range(self.first_image, self.first_image + len(features))
        for index, fault in self._feature_faults:
            if applies_to(fault, site):
                plan = self._source.site_plan(site, index, images)
                self._hit_output(features, fault, plan, number)

    def _hit_output(self, features: Tensor, fault: Fault, plan: SitePlan, number: FixedPoint) -> None:
        key = (plan.site, plan.fault)
        self._applied[key] = self._applied.get(key, 0) + len(plan)
        if len(plan):
            effect = effect_of(fault, plan.events_from(self.first_image), number)
            changed = apply_(features, fault, effect, number=number, clean=features)
            self._effective[key] = self._effective[key] + changed if key in self._effective else changed

    def _weight_hits(self, site: Site, number: FixedPoint) -> list[_Hit]:
        """Return what hits the weight at ``site``: drawn at the first forward pass, the same in all others."""
        known = (site.name, site.bits)
        if known not in self._weight_effects:
            self._weight_effects[known] = []
            for index, fault in self._weight_faults:
                if applies_to(fault, site):
                    plan = self._source.site_plan(site, index)
                    self._applied[site.name, index] = len(plan)
                    effect = effect_of(fault, plan.events, number)
                    self._weight_effects[known] += [_Hit((site.name, index), fault, effect)] if len(plan) else []
        return self._weight_effects[known]


@contextmanager
def inject(
    model: nn.Module,
    faults: Fault | str | Sequence[Fault | str] | Plan,
    *,
    chip: int = 0,
    study: str = "ftnas",
    first_image: int = 0,
    gradient: Gradient = "masked",
) -> Iterator[Injection]:
    """Let the quantised layers of ``model`` compute on a faulty chip; afterwards nothing is left of it.

    The faults depend on study, chip, site and image only: not on batch size, memory layout, device or what else runs.
    A chip's faults at a low rate are among its faults at any higher rate.

    Args:
        model: only its own layers are hit, whatever else runs inside the block.
        faults: one or several models or texts such as ``features.mac_bit_bias:1e-4``, which act in this order, or a
            ``Plan``, which says study and chip itself.
        chip: number of the chip in the study.
        study: name of the study.
        first_image: which image of the data set the batch begins with.
        gradient: of faulty weights; ``masked`` is 0, as in arXiv 2003.10375's code. Feature faults are constants that
            the gradient passes unchanged.

    Raises:
        FaultError: an argument is impossible, or another injection is active.
    """
    source = _source(model, faults, chip=chip, study=study)
    _check(first_image, gradient)
    injection = Injection(model, source, first_image=first_image, gradient=gradient)
    with tapped(injection):
        yield injection


@dataclass(frozen=True, slots=True)
class _Hit:
    key: tuple[str, int]
    fault: Fault
    effect: Effect


class _Paths:
    """Finds the path of a layer in ``model``; remembered paths are checked once, since modules may have moved."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._paths: Mapping[nn.Module, str] = layer_paths(model)
        self._found: dict[nn.Module, str | None] = {}
        self._fresh = False

    def find(self, layer: nn.Module) -> str | None:
        """Return the path of ``layer``, ``None`` where it belongs to another model."""
        if layer not in self._found:
            path = self._paths.get(layer)
            if not self._fresh and (path is None or not is_at(self._model, path, layer)):
                self._paths, self._fresh = layer_paths(self._model, fresh=True), True
                path = self._paths.get(layer)
            self._found[layer] = path
        return self._found[layer]


def _active(source: Chip | Plan, target: Target) -> list[tuple[int, Fault]]:
    return [pair for pair in enumerate(source.faults) if pair[1].target == target and pair[1].rate > 0]


def _source(
    model: nn.Module, faults: Fault | str | Sequence[Fault | str] | Plan, *, chip: int, study: str
) -> Chip | Plan:
    if not isinstance(faults, Plan):
        return Chip(study, chip, parse_faults(faults))
    if (study, chip) not in (("ftnas", 0), (faults.study, faults.number)):
        raise FaultError(f"the plan is of chip {faults.number} of {faults.study!r}, not of chip {chip} of {study!r}")
    check_plan(faults, model)
    return faults


def _check(first_image: int, gradient: str) -> None:
    if first_image < 0:
        raise FaultError(f"first_image must be 0 or more, got {first_image}")
    if gradient not in get_args(Gradient):
        raise FaultError(f"gradient must be one of {', '.join(get_args(Gradient))}, got {gradient!r}")
    if current_tap() is not None:
        raise FaultError("an injection is active already; give all fault models to one inject()")
