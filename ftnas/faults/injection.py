"""Injecting faults into the forward passes of a model, for as long as a ``with`` block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor, nn

from ftnas.distributed import largest_, sharing
from ftnas.errors import FaultError
from ftnas.faults.ahead import NOTHING, Ahead, Hits
from ftnas.faults.applying import apply_, replace_value
from ftnas.faults.chips import Chip
from ftnas.faults.codes import is_analogue, looks_at_all
from ftnas.faults.events import Integers
from ftnas.faults.models import Fault, Target, duration
from ftnas.faults.plans import Plan, check_plan
from ftnas.faults.sites import Site, is_at, layer_paths, output_site, weight_site
from ftnas.faults.texts import parse_faults
from ftnas.quantization import Number, QuantizedLayer, Touched, current_tap, tapped

Gradient = Literal["masked", "straight_through"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many faults met one site.

    Attributes:
        planned: parts that fail.
        applied: those of them in tensors that were computed. A weight's are counted once, however many forward
            passes read it, and where they do not last, once for each first image; those of outputs once for each pass.
        effective: values whose code changed.
        masked: values that a fault met and whose code is what it was.
    """

    planned: int
    applied: int
    effective: int
    masked: int


class Injection:
    """The tap that ``inject`` opens.

    Attributes:
        first_image: which image of the data set the next batch begins with; may be set between forward passes.

    Args:
        batch_begins: the first image of the whole batch, where that is shared by processes and this one has images
            from ``first_image``. All parts of a batch see the same weights.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Chip | Plan,
        *,
        first_image: int,
        gradient: Gradient,
        batch_begins: int | None = None,
    ) -> None:
        self.first_image = first_image
        self._batch_begins = batch_begins
        self._model, self._source, self._gradient = model, source, gradient
        self._paths: _Paths = _Paths(model)
        self._weight_faults = _active(source, "weights")
        self._feature_faults = _active(source, "features")
        self._beyond_convolutions = any(fault.scope == "all" for _, fault in self._feature_faults)
        self._outputs = Ahead(model, source, "features", self._feature_faults)
        self._weights = Ahead(model, source, "weights", self._weight_faults)
        self._weight_effects: dict[tuple[str, int, bool, tuple[int, ...], int | None], list[tuple[_Key, Hits]]] = {}
        self._applied: dict[_Key, int] = {}
        self._met: dict[_Key, int] = {}
        self._effective: dict[_Key, int | Tensor] = {}
        fleeting = any(duration(fault) != "permanent" for _, fault in self._weight_faults)
        self._fleeting_weights = fleeting and not isinstance(source, Plan)

    @property
    def _pass(self) -> int:
        """The first image of the forward pass, by which weight faults that do not last are told apart."""
        return self.first_image if self._batch_begins is None else self._batch_begins

    @property
    def counts(self) -> dict[str, Count]:
        """Counts so far, by site."""
        planned = dict(self._applied)
        if isinstance(self._source, Plan):
            planned = {(*key, None): len(plan) for key, plan in self._source.sites.items()}
        return {name: self._count(name, planned) for name, *_ in planned}

    def _count(self, name: str, planned: Mapping[_Key, int]) -> Count:
        keys = [key for key in planned if key[0] == name]
        effective = sum(int(self._effective.get(key, 0)) for key in keys)
        return Count(
            planned=sum(planned[key] for key in keys),
            applied=sum(self._applied.get(key, 0) for key in keys),
            effective=effective,
            masked=sum(self._met.get(key, 0) for key in keys) - effective,
        )

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight`` with the chip's faults."""
        path = self._paths.find(layer) if self._weight_faults else None
        if path is None or not isinstance(layer, QuantizedLayer):
            return weight
        found = self._weight_hits(layer, path, number, weight)
        if not found:
            return weight
        faulty, masked = weight.detach().clone(), []
        for key, hits in found:
            fault = self._source.faults[hits.fault]
            # A clone of a weight that overlaps itself or has gaps lies otherwise in memory.
            offsets = hits.offsets if faulty.stride() == weight.stride() else None
            changed = apply_(faulty, fault, hits.effect, number=number, clean=weight, offsets=offsets)
            self._met[key], self._effective[key] = len(hits.effect.element), changed
            if self._gradient == "masked" and not is_analogue(fault):
                masked.append(hits.effect.element)
        return replace_value(weight, faulty, masked=masked)

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> Touched:
        """Put the chip's faults into ``features`` ``[N, ...]``, and return which elements they met."""
        if not self._feature_faults or not isinstance(layer, QuantizedLayer) or not layer.stores_output:
            return NO_ELEMENTS
        images = range(self.first_image, self.first_image + len(features))
        found = self._outputs.ready(layer, number, features, images) or self._drawn_now(layer, number, features, images)
        if found is None:
            return NO_ELEMENTS
        name, hits = found
        if len(hits) == 1:
            return self._hit_output(features, name, hits[0], number)
        return np.concatenate([NO_ELEMENTS, *(self._hit_output(features, name, one, number) for one in hits)])

    def _drawn_now(
        self, layer: QuantizedLayer, number: Number, features: Tensor, images: range
    ) -> tuple[str, list[Hits]] | None:
        """Return the site of an output and what hits it; ``None`` where nothing can."""
        path = self._paths.find(layer) if layer.kind == "conv" or self._beyond_convolutions else None
        if path is None:
            return None
        site = output_site(path, layer, number, tuple(features.shape[1:]))
        return site.name, self._outputs.hits(layer, site, number=number, values=features, images=images)

    def _hit_output(self, features: Tensor, name: str, hits: Hits, number: Number) -> Integers:
        """Put ``hits`` into ``features`` of the site ``name``, and return the elements that they met."""
        fault, key = self._source.faults[hits.fault], (name, hits.fault, None)
        # Asked of all processes, whether or not one of them has hits.
        alone = sharing().size == 1 or not looks_at_all(fault)
        clean = features if alone else largest_(features.detach().abs().amax())
        self._applied[key] = self._applied.get(key, 0) + hits.planned
        if hits.planned:
            changed = apply_(features, fault, hits.effect, number=number, clean=clean, offsets=hits.offsets)
            self._met[key] = self._met.get(key, 0) + len(hits.offsets)
            self._effective[key] = self._effective.get(key, 0) + changed
        return hits.effect.element

    def _weight_hits(self, layer: QuantizedLayer, path: str, number: Number, weight: Tensor) -> list[tuple[_Key, Hits]]:
        """Return what hits the weight of ``layer``: drawn once, or for each batch where weight faults do not last."""
        site = weight_site(path, layer, number)
        first = self._pass if self._fleeting_weights else None
        known = (site.name, number.bits, number.signed, weight.stride(), first)
        if known not in self._weight_effects:
            if self._fleeting_weights:  # those of other batches are done with
                self._weight_effects = {key: hits for key, hits in self._weight_effects.items() if key[-1] == first}
            images = None if first is None else range(first, first + 1)
            found = self._weights.hits(layer, site, number=number, values=weight, images=images)
            drawn = [(self._weight_key(site, hits), hits) for hits in found]
            self._applied |= {key: hits.planned for key, hits in drawn}
            self._weight_effects[known] = [(key, hits) for key, hits in drawn if hits.planned]
        return self._weight_effects[known]

    def _weight_key(self, site: Site, hits: Hits) -> _Key:
        lasts = duration(self._source.faults[hits.fault]) == "permanent"
        return site.name, hits.fault, None if lasts else self._pass


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
            the gradient passes unchanged, and so is the variation of weights, which leaves none of them alone.

    Raises:
        FaultError: an argument is impossible, or another injection is active.
    """
    source = _source(model, faults, chip=chip, study=study)
    _check(first_image, gradient)
    injection = Injection(model, source, first_image=first_image, gradient=gradient)
    with tapped(injection):
        yield injection


NO_ELEMENTS = NOTHING.element

# Site, index of the fault model, and of weight faults that do not last the first image of the batch.
_Key = tuple[str, int, int | None]


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
    """Return the faults of ``target`` that can hit something, with their index in the list."""
    found = [pair for pair in enumerate(source.faults) if pair[1].target == target and pair[1].rate > 0]
    if isinstance(source, Plan):
        hitting = {index for (_, index), plan in source.sites.items() if len(plan)}
        return [pair for pair in found if pair[0] in hitting]
    return found


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
