"""Hardening as a pass over a trained net: analyse, select, protect, calibrate, count.

found = harden(net, images, HardeningOptions(budget=0.25))
found.model  # an ordinary quantised net, its copies inside the fault surface
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import HardeningError
from ftnas.faults import Fault, parse_faults
from ftnas.hardening.methods import HardeningOptions, rule_for
from ftnas.hardening.overhead import Overhead, size_of
from ftnas.hardening.selection import plan_of
from ftnas.hardening.vulnerability import LayerVulnerability, nothing_vulnerable, vulnerability_of
from ftnas.networks.correction import LIMITS
from ftnas.networks.correction_unit import CorrectionUnit
from ftnas.networks.hardened import protect_
from ftnas.networks.protection import Protection
from ftnas.quantization import Unchanging, quantized_layers, tapped
from ftnas.runtime import evaluating

BATCH = 128
CALIBRATION_IMAGES = 512


@dataclass(frozen=True, eq=False)
class Hardening:
    """A hardened net.

    Attributes:
        model: a copy of the net, hardened, in evaluation mode.
        plan: how each layer is protected, by the path that it has in the net.
        overhead: what that costs.
        unchecked: what to tell of a selection that rests on little; empty where there is nothing to tell.
    """

    model: nn.Module
    plan: Mapping[str, Protection]
    overhead: Overhead
    unchecked: str = ""


def harden(
    model: nn.Module,
    images: Tensor,
    options: HardeningOptions | None = None,
    *,
    faults: Fault | str | Sequence[Fault | str] = (),
    vulnerability: Mapping[str, LayerVulnerability] | None = None,
    analyse: Callable[[nn.Module, Tensor], Mapping[str, LayerVulnerability]] = vulnerability_of,
) -> Hardening:
    """Return ``model`` hardened; it is left as it is.

    Args:
        model: a quantised net with known ranges.
        images: training images ``[N, C, H, W]``: the first ones are what vulnerability is analysed on, and what ranges
            are calibrated on. Test images would flatter.
        options: what is asked for; by default all neurons are split.
        faults: what is to be borne; decides by which rule copies are merged.
        vulnerability: of the net, if it is known already.
        analyse: finds it out otherwise, where it is needed.

    Raises:
        HardeningError: nothing can be protected as asked.
    """
    options = options or HardeningOptions()
    if not quantized_layers(model):
        raise HardeningError(f"{type(model).__name__}: has no quantised layer; quantise it first")
    twin = copy.deepcopy(model).eval()
    size = size_of(twin, tuple(images.shape[1:]))  # type: ignore[arg-type]
    rule = rule_for(options, parse_faults(faults))
    needed = options.select == "nvf" and options.method != "bound" and not _is_everything(options)
    known = analyse(twin, images[: options.images]) if needed and vulnerability is None else vulnerability
    plan = plan_of(twin, images[:1], options, rule, size=size, vulnerability=known)
    protect_(twin, plan)
    calibrate_(twin, images[:CALIBRATION_IMAGES])
    after = size_of(twin, tuple(images.shape[1:]))  # type: ignore[arg-type]
    unchecked = nothing_vulnerable(known) if needed and known is not None else None
    return Hardening(twin.eval(), plan, Overhead(size, after), unchecked or "")


def check_hardening(
    model: nn.Module, images: Tensor, options: HardeningOptions, *, faults: Fault | str | Sequence[Fault | str] = ()
) -> None:
    """Refuse what cannot be protected as asked, without the work of an analysis; arguments as of ``harden``.

    Raises:
        HardeningError: see ``harden``.
    """
    twin = copy.deepcopy(model).eval()
    # What a budget buys at all does not depend on the order of what is bought.
    asked = replace(options, select="random") if options.select == "nvf" else options
    size = size_of(twin, tuple(images.shape[1:]))  # type: ignore[arg-type]
    plan_of(twin, images[:1], asked, rule_for(options, parse_faults(faults)), size=size)


def _is_everything(options: HardeningOptions) -> bool:
    """Return whether all channels are protected, so that nothing has to be ranked."""
    return options.budget is None and not options.ratios


@torch.no_grad()
def calibrate_(model: nn.Module, images: Tensor) -> nn.Module:
    """Measure what the units of ``model`` need to know of its values without faults, on ``images`` ``[N, C, H, W]``.

    ``guard`` restricts each channel to the lowest and highest code that it has; two halves by weights may be apart by
    as much as they are at most. After further training, calibrate again.
    """
    units = [m for m in model.modules() if isinstance(m, CorrectionUnit) and m.protection.method in LIMITS]
    if not units:
        return model
    for unit in units:
        unit.forget_()
    with _watched(units), tapped(Unchanging()), evaluating(model):
        for batch in images.split(BATCH):
            model(batch)
    return model


@contextmanager
def _watched(units: Sequence[CorrectionUnit]) -> Iterator[None]:
    """Let ``units`` take what they saw for their limits when the block ends; before that they restrict nothing."""
    seen: dict[CorrectionUnit, list[Tensor]] = {}

    def note(unit: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(unit, CorrectionUnit):
            found = unit.observed(*inputs)
            before = seen.get(unit)
            seen[unit] = found if before is None else unit.joined(before, found)

    hooks = [unit.register_forward_pre_hook(note) for unit in units]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for unit, limits in seen.items():
        unit.settle_(limits)


def under_hardened_names(model: nn.Module, paths: Iterable[str]) -> nn.Module:
    """Return a copy of ``model`` whose layers at ``paths`` have the path that a hardened one has.

    A fault is drawn by the path of its layer, so both then meet the same faults, but for those of the copies.
    """
    twin = copy.deepcopy(model).eval()
    for path in paths:
        parent, _, name = path.rpartition(".")
        twin.get_submodule(parent)._modules[name] = _Renamed(twin.get_submodule(path))
    return twin


class _Renamed(nn.Module):
    """A layer one level deeper."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Tensor:
        """Return what the layer does."""
        y: Tensor = self.layer(*inputs)
        return y
