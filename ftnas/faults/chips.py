"""What fails at a site of a chip: drawn as data, the same way for live injection and for plans kept in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ftnas.faults.codes import MECHANISMS, NO_EVENTS, Events, events_of
from ftnas.faults.models import Fault, MacBitBias
from ftnas.faults.sampling import draw_hits, failure_time
from ftnas.faults.sites import Site
from ftnas.runtime import keyed_generator

# Feature faults are drawn for 64 images at a time, counted from the data set's first image, so they depend neither
# on the batch size nor on the order of the batches.
BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class SitePlan:
    """What fails at one site under one fault model.

    Attributes:
        site: the site's name.
        fault: index of the model in the list of faults.
        shape: of the weight, or of one image's output.
        bits: width of the codes.
        events: ascending by element; for outputs that is ``image * values + value``, images counted in the data set.
    """

    site: str
    fault: int
    shape: tuple[int, ...]
    bits: int
    events: Events

    def __len__(self) -> int:
        return len(self.events.element)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SitePlan):
            return NotImplemented
        same = [np.array_equal(getattr(self.events, name), getattr(other.events, name)) for name in Events._fields]
        return self.label == other.label and all(same)

    def __hash__(self) -> int:
        return hash(self.label)

    @property
    def label(self) -> tuple[str, int, tuple[int, ...], int]:
        """Everything but the events."""
        return self.site, self.fault, self.shape, self.bits

    def of_images(self, images: range) -> SitePlan:
        """Return the events of ``images`` only."""
        values, element = math.prod(self.shape), self.events.element
        first, last = (int(element.searchsorted(image * values)) for image in (images.start, images.stop))
        if last - first == len(self):
            return self
        return SitePlan(*self.label, Events(self.events.element[first:last], self.events.what[first:last]))

    def events_from(self, image: int) -> Events:
        """Return the events with elements counted from the first value of ``image``."""
        return self.events._replace(element=self.events.element - image * math.prod(self.shape))


@dataclass(frozen=True, slots=True)
class Chip:
    """One faulty device: all that fails on it follows from study, number and fault models."""

    study: str
    number: int
    faults: tuple[Fault, ...]

    def site_plan(self, site: Site, fault: int, images: range | None = None) -> SitePlan:
        """Return what fails at ``site`` under fault model ``fault`` of the list; ``images`` for outputs only."""
        return sample_site(self, site, fault=fault, images=images)


def applies_to(fault: Fault, site: Site) -> bool:
    """Return whether ``fault`` can hit ``site``."""
    kind = "weight" if fault.target == "weights" else "output"
    return site.kind == kind and (fault.scope == "all" or site.layer == "conv")


def sample_site(chip: Chip, site: Site, *, fault: int, images: range | None = None) -> SitePlan:
    """Draw what fails at ``site`` under fault model ``fault`` of the chip's list.

    A weight is drawn whole. Outputs are drawn in blocks of 64 images, of which those in ``images`` are kept.
    """
    if images is None:
        events = _draw_block(chip, site, fault=fault, block=0, values=site.values)
        return SitePlan(site.name, fault, site.shape or (), site.bits, events)
    blocks = range(images.start // BLOCK, -(-images.stop // BLOCK))
    drawn = [_draw_block(chip, site, fault=fault, block=block, values=site.values * BLOCK) for block in blocks]
    plan = SitePlan(site.name, fault, site.shape or (), site.bits, _joined(drawn))
    is_whole = len(blocks) * BLOCK == len(images)
    return plan if is_whole else plan.of_images(images)


def _draw_block(chip: Chip, site: Site, *, fault: int, block: int, values: int) -> Events:
    """Draw the events of one block of ``values`` values; a weight is one block."""
    model = chip.faults[fault]

    def stream(part: str) -> torch.Generator:
        return keyed_generator(chip.study, chip.number, site.name, fault, model.name, block, part)

    hits = draw_hits(values * MECHANISMS[type(model)].parts(site.bits), _time(model, site), stream)
    if not len(hits.position):
        return NO_EVENTS
    events = events_of(model, hits, site.bits)
    return events._replace(element=events.element + block * values) if block else events


def _time(fault: Fault, site: Site) -> float:
    """Return until when clocks ring: M times as long where each of M multiply-accumulates fails at the rate."""
    if isinstance(fault, MacBitBias):
        return failure_time(fault.rate) * site.macs_per_value if site.macs_per_value else 0.0
    return failure_time(fault.rate)


def _joined(parts: Sequence[Events]) -> Events:
    """Return the events of consecutive blocks as one."""
    full = [part for part in parts if len(part.element)]
    if len(full) < 2:
        return full[0] if full else NO_EVENTS
    return Events(np.concatenate([part.element for part in full]), np.concatenate([part.what for part in full]))
