"""What fails at a site of a chip: drawn as data, the same way for live injection and for plans kept in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftnas.errors import FaultError
from ftnas.faults.drawing import events_of, parts_of, time_of, variation
from ftnas.faults.events import NO_EVENTS, Events, Integers, joined
from ftnas.faults.models import Fault, Gaussian, Listed, LogNormal, duration
from ftnas.faults.sampling import draw_hits, mixed
from ftnas.faults.sites import Site
from ftnas.runtime import key_seed, keyed_generator

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
        values = math.prod(self.shape)
        return SitePlan(*self.label, self.events.between(images.start * values, images.stop * values))

    def events_from(self, image: int) -> Events:
        """Return the events with elements counted from the first value of ``image``."""
        return self.events.moved(-image * math.prod(self.shape))


@dataclass(frozen=True, slots=True)
class Chip:
    """One faulty device: all that fails on it follows from study, number and fault models."""

    study: str
    number: int
    faults: tuple[Fault, ...]

    def site_plan(self, site: Site, fault: int, images: range | None = None) -> SitePlan:
        """Return what fails at ``site`` under fault model ``fault`` of the list (see ``sample_site``)."""
        return sample_site(self, site, fault=fault, images=images)


def applies_to(fault: Fault, site: Site) -> bool:
    """Return whether ``fault`` can hit ``site``."""
    kind = "weight" if fault.target == "weights" else "output"
    return site.kind == kind and (fault.scope == "all" or site.layer == "conv")


def sample_site(chip: Chip, site: Site, *, fault: int, images: range | None = None) -> SitePlan:
    """Draw what fails at ``site`` under fault model ``fault`` of the chip's list.

    Outputs are drawn in blocks of 64 images, of which those in ``images`` are kept. A permanent fault hits every
    image, and every step of a register, alike; an intermittent one each with probability ``activity``. A weight is
    drawn whole; where its faults do not last as long as the chip, they are those of the forward pass whose first image
    is that of ``images``.

    Raises:
        FaultError: faults that are listed one by one cannot be drawn.
    """
    model = chip.faults[fault]
    if isinstance(model, Listed):
        raise FaultError(f"{model.name} stands for faults listed in a plan; nothing can be drawn from it")
    if site.kind == "weight":
        events = _draw_weight(chip, site, fault, images)
        return SitePlan(site.name, fault, site.shape or (), site.bits, events)
    if images is None:
        raise FaultError(f"{site.name}: faults of outputs need the images to draw them for")
    draw = _draw_transient if duration(model) == "transient" else _draw_lasting
    return SitePlan(site.name, fault, site.shape or (), site.bits, draw(chip, site, fault, images))


def _draw_weight(chip: Chip, site: Site, fault: int, images: range | None) -> Events:
    lasts = duration(chip.faults[fault])
    if lasts == "permanent":
        return _draw_block(chip, site, fault, block=0, values=site.values)
    if images is None:
        raise FaultError(f"{site.name}: {lasts} faults of weights differ from forward pass to forward pass")
    if lasts == "transient":
        return _draw_block(chip, site, fault, block=images.start, values=site.values)
    events = _draw_block(chip, site, fault, block=0, values=site.values)
    return events.part(_acts(chip, site, fault, events.element, images.start))


def _draw_transient(chip: Chip, site: Site, fault: int, images: range) -> Events:
    blocks = range(images.start // BLOCK, -(-images.stop // BLOCK))
    drawn = joined([_draw_block(chip, site, fault, block=block, values=site.values * BLOCK) for block in blocks])
    if len(blocks) * BLOCK == len(images):
        return drawn
    return drawn.between(images.start * site.values, images.stop * site.values)


def _draw_lasting(chip: Chip, site: Site, fault: int, images: range) -> Events:
    """Return one image's faults at every one of ``images``, or at those in which an intermittent fault acts."""
    once = _draw_block(chip, site, fault, block=0, values=site.values)
    repeated = [once.moved(image * site.values) for image in images]
    if duration(chip.faults[fault]) == "intermittent":
        acting = [_acts(chip, site, fault, once.element, image) for image in images]
        repeated = [events.part(acts) for events, acts in zip(repeated, acting, strict=True)]
    return joined(repeated)


def _acts(chip: Chip, site: Site, fault: int, element: Integers, image: int) -> NDArray[np.bool_]:
    """Return whether the intermittent fault at each element acts in ``image``: the same at every rate and split."""
    model = chip.faults[fault]
    seed = np.uint64(key_seed(chip.study, chip.number, site.name, fault, model.name, image, "activity"))
    x = (element.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ seed
    return mixed(x) * 2.0**-64 < getattr(model, "activity", 1.0)


def _draw_block(chip: Chip, site: Site, fault: int, *, block: int, values: int) -> Events:
    """Draw the events of one block of ``values`` values; a weight is one block."""
    model = chip.faults[fault]
    name = site.name if duration(model) == "transient" else site.register or site.name

    key = (chip.study, chip.number, name, fault, model.name, block)
    by = 0 if site.kind == "weight" else block * values
    if not values or not model.rate:
        return NO_EVENTS
    if isinstance(model, LogNormal | Gaussian):
        return variation(values, keyed_generator(*key, "normal")).moved(by)
    population = parts_of(model, site) * (values // site.values)
    hits = draw_hits(population, time_of(model, site), key)
    return events_of(model, hits, site).moved(by) if len(hits.position) else NO_EVENTS
