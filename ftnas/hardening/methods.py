"""What is asked of a hardening: which method, how much of it, and by which choice of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from ftnas.errors import HardeningError
from ftnas.faults import Fault
from ftnas.hardening.overhead import RESOURCES, Resource
from ftnas.networks.correction import COPIES, Method, Rule, rules_of

Selection = Literal["nvf", "l1", "random"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)


@dataclass(frozen=True, slots=True)
class HardeningOptions:
    """How a net is to be hardened.

    Attributes:
        method: ``split``, ``split_weights``, ``duplicate_min``, ``tmr``, ``guard`` or ``bound``.
        budget: extra resources, as a share of those of the net; without it, and without ratios, all is protected.
        budget_in: ``macs``, those of the units included, ``parameters`` or ``activation_bytes``.
        ratios: share of the channels of a layer to be protected, each as ``LAYER=0.5``; the layer may be a pattern such
            as ``cells.*``, and the last one that fits holds. Without a budget, other layers are left alone.
        select: which channels come first: by vulnerability (``nvf``), by the L1 norm of their weights, or ``random``.
        rule: by which copies are merged or values restricted; by default the method's own for the faults.
        images: training images that vulnerability is analysed on.
        seed: of a random choice.
    """

    method: Method = "split"
    budget: float | None = None
    budget_in: Resource = "macs"
    ratios: tuple[str, ...] = ()
    select: Selection = "nvf"
    rule: Rule | None = None
    images: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("method", self.method, tuple(COPIES)),
            ("budget_in", self.budget_in, RESOURCES),
            ("select", self.select, SELECTIONS),
            ("rule", self.rule, (None, *rules_of(self.method)) if self.method in COPIES else ()),
        ):
            if value not in allowed:
                raise HardeningError(f"{name}: {value!r}; choose from {', '.join(str(one) for one in allowed if one)}")
        if self.budget is not None and not (self.budget > 0 and math.isfinite(self.budget)):
            raise HardeningError(f"budget: {self.budget}; allowed is a share of the net's {self.budget_in} above 0")
        if self.images < 1:
            raise HardeningError(f"images: {self.images}; allowed is 1 or more, and 400 give a ranking that holds")
        if self.method == "bound" and (self.budget is not None or self.ratios):
            raise HardeningError("bound: protects all weights at no cost in MACs; leave out budget and ratios")
        for text in self.ratios:
            parse_ratio(text)


def parse_ratio(text: str) -> tuple[str, float]:
    """Read ``LAYER=0.5``.

    Raises:
        HardeningError: it is something else, or the share is not in 0..1.
    """
    layer, _, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not layer or not 0 <= value <= 1:
        raise HardeningError(f"ratio: {text!r}; allowed is LAYER=SHARE with a share from 0 to 1, such as 'stem=0.5'")
    return layer, value


def ratios_by_layer(ratios: Sequence[str], layers: Sequence[str]) -> dict[str, float]:
    """Return the share of each of ``layers`` that a ratio is given for.

    Raises:
        HardeningError: a ratio fits no layer.
    """
    found: dict[str, float] = {}
    for pattern, share in map(parse_ratio, ratios):
        fitting = [layer for layer in layers if fnmatchcase(layer, pattern)]
        if not fitting:
            raise HardeningError(f"ratio: {pattern!r} is no layer that can be protected; the first is {layers[0]}")
        found.update(dict.fromkeys(fitting, share))
    return found


def rule_for(options: HardeningOptions, faults: Sequence[Fault]) -> Rule:
    """Return the rule of ``options``, by default the method's own.

    Where only weights fail, copies are merged by their mean or median: the smaller of two sums of products, each with
    faults of its own, is drawn downwards. Where features do, too, the smaller half or the bitwise majority is taken.
    """
    rules = rules_of(options.method)
    if options.rule is not None:
        return options.rule
    only_weights = bool(faults) and all(fault.target == "weights" for fault in faults)
    return rules[1] if only_weights and options.method not in ("guard", "bound") else rules[0]
