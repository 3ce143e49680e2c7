"""Plans of faults that are named one by one, and plans as tables for those who build the hardware."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import nn

from ftnas.errors import FaultError
from ftnas.faults.chips import SitePlan
from ftnas.faults.events import BIT, FLIP, SET, Events, kind_text, what
from ftnas.faults.models import Listed, Target
from ftnas.faults.plans import Plan
from ftnas.faults.sites import Site, sites
from ftnas.files import replacing

FlipKind = Literal["flip", "stuck_at_0", "stuck_at_1"]
_TARGET: Mapping[str, Target] = {"weight": "weights", "output": "features"}
_WHAT = {"flip": (FLIP, 1), "stuck_at_0": (SET, 0), "stuck_at_1": (SET, 1)}
CSV_COLUMNS = ("tensor", "image", "index", "bit", "kind")


@dataclass(frozen=True, slots=True)
class Flip:
    """One faulty bit.

    Attributes:
        site: name of a fault site, such as ``stem.weight``.
        element: which value, counted in logical order of the weight, or of one image's output ``[C, H, W]``.
        bit: 0 is the least significant.
        kind: what happens to it.
        image: whose output fails, counted in the data set; 0 for weights.
    """

    site: str
    element: int
    bit: int
    kind: FlipKind = "flip"
    image: int = 0


def explicit_plan(
    model: nn.Module, flips: Sequence[Flip], *, shapes: Mapping[str, tuple[int, ...]] | None = None, images: int = 0
) -> Plan:
    """Return the plan in which exactly ``flips`` fail; ``inject`` takes it.

    Args:
        model: gives sites and number formats.
        flips: in any order, of weights and of outputs.
        shapes: from ``output_shapes``; needed for faults of outputs.
        images: how many images of the data set will run; needed for faults of outputs.

    Raises:
        FaultError: a site, element, bit or image does not exist, or a bit is listed twice.
    """
    known = {site.name: site for site in sites(model, shapes=shapes)}
    for flip in flips:
        _check(flip, known, images)
    _check_distinct(flips)
    by_site: dict[str, list[Flip]] = {}
    for flip in flips:
        by_site.setdefault(flip.site, []).append(flip)
    targets: list[Target] = ["weights", "features"] if images and shapes else ["weights"]
    plans: dict[tuple[str, int], SitePlan] = {}
    for index, target in enumerate(targets):
        of_target = [site for site in known.values() if _TARGET[site.kind] == target and site.shape is not None]
        plans |= {(site.name, index): _site_plan(site, index, by_site.get(site.name, [])) for site in of_target}
    return Plan("listed", 0, tuple(Listed(target) for target in targets), range(images), plans)


def export_csv(plan: Plan, path: Path) -> None:
    """Write the faults of ``plan`` as rows of tensor, image, index, bit and kind.

    The image is empty for weights, the bit for whole values; the index counts in logical order of the weight, or of
    one image's output.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for planned in plan.sites.values():
            writer.writerows(_rows(planned))


def _rows(planned: SitePlan) -> Iterator[tuple[str, int | str, int, int | str, str]]:
    events, values = planned.events, math.prod(planned.shape)
    for position, (element, number) in enumerate(zip(events.element.tolist(), events.what.tolist(), strict=True)):
        image, index = divmod(element, values)
        bit = int(BIT[number])
        amount = int(events.amount[position]) if len(events.amount) else None
        of_weight, kind = planned.site.endswith("weight"), kind_text(number, amount, planned.bits)
        yield planned.site, "" if of_weight else image, index, bit if bit >= 0 else "", kind


def _check(flip: Flip, known: Mapping[str, Site], images: int) -> None:
    if flip.site not in known:
        raise FaultError(f"no fault site is called {flip.site!r}; the first is {next(iter(known))}")
    site = known[flip.site]
    if site.kind == "output" and not images:
        raise FaultError(f"{flip.site}: faults of outputs need images=HOW_MANY, the images that will run")
    allowed = [("element", flip.element, site.values), ("bit", flip.bit, site.bits)]
    allowed += [("image", flip.image, images)] if site.kind == "output" else [("image", flip.image, 1)]
    for name, value, end in allowed:
        if not isinstance(value, int | np.integer) or not 0 <= value < end:
            raise FaultError(f"{flip.site}: {name} must be a whole number from 0 to {end - 1}, got {value}")
    if flip.kind not in get_args(FlipKind):
        raise FaultError(f"{flip.site}: kind must be one of {', '.join(get_args(FlipKind))}, got {flip.kind!r}")


def _check_distinct(flips: Sequence[Flip]) -> None:
    """Refuse a bit that is listed twice: two flips would undo each other, and no bit is stuck both ways."""
    seen: set[tuple[str, int, int, int]] = set()
    for flip in flips:
        key = (flip.site, flip.image, flip.element, flip.bit)
        if key in seen:
            raise FaultError(f"{flip.site}: element {flip.element}, bit {flip.bit}, image {flip.image} is listed twice")
        seen.add(key)


def _site_plan(site: Site, fault: int, here: Sequence[Flip]) -> SitePlan:
    element = np.array([flip.image * site.values + flip.element for flip in here], np.int64)
    numbers = np.array([what(kind, flip.bit, value) for flip in here for kind, value in [_WHAT[flip.kind]]], np.uint16)
    order = np.lexsort((numbers, element))
    return SitePlan(site.name, fault, site.shape or (), site.bits, Events(element[order], numbers[order]))
