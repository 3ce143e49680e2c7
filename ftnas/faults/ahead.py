"""What hits the outputs of a forward pass, drawn in one go at the first of them where the pass can be foreseen.

Drawing is many small steps. Between two convolutions, which leave none of their code and data in the processor's
caches, they take three to five times as long as one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults.applying import storage_offsets
from ftnas.faults.chips import Chip, applies_to
from ftnas.faults.codes import Effect, effect_of
from ftnas.faults.events import Integers
from ftnas.faults.models import Fault
from ftnas.faults.plans import Plan
from ftnas.faults.sites import Site
from ftnas.quantization import FixedPoint, Number

# Of what is kept for later layers (40 MB). Where more fails, small steps are not what takes the time.
MOST_EVENTS = 2**20


class Hits(NamedTuple):
    """What one fault model does to an output.

    Attributes:
        fault: the model's index in the list.
        planned: parts that fail.
        effect: what that comes to for each value.
        offsets: where in memory those values are (see ``flat_storage``).
    """

    fault: int
    planned: int
    effect: Effect
    offsets: Integers


class Place(NamedTuple):
    """An output of a batch, as far as what hits it depends on it: not on its scale, which moves as a net trains."""

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    bits: int
    signed: bool
    macs_per_value: int


@dataclass(slots=True)
class _Passes:
    """The outputs of a model's last two forward passes, in order."""

    before: dict[Place, Site] = field(default_factory=dict)
    last: dict[Place, Site] = field(default_factory=dict)

    def begin(self) -> tuple[dict[Place, Site], dict[Place, Site]]:
        """Return the outputs that a new pass will have, and where to note those that it has.

        If the last two passes differed, as those of a supernet's paths do, there is nothing to go by.
        """
        last, noted = self.last, dict[Place, Site]()
        before, self.before, self.last = self.before, last, noted
        # A copy, as another thread may be in the middle of its pass.
        return (dict(last) if list(before) == list(last) else {}), noted


_PASSES: WeakKeyDictionary[nn.Module, _Passes] = WeakKeyDictionary()


class Ahead:
    """Draws what hits the outputs of ``model``: the same, whether ahead or when a layer asks.

    Args:
        model: whose passes they are.
        source: what fails.
        faults: those of outputs, with their index in the list of ``source``.
    """

    def __init__(self, model: nn.Module, source: Chip | Plan, faults: Sequence[tuple[int, Fault]]) -> None:
        self._model, self._source, self._faults = model, source, faults
        self._first_image = -1
        self._met: dict[Place, Site] = {}
        self._drawn: dict[Place, list[Hits]] = {}

    def hits(self, site: Site, number: Number, features: Tensor, first_image: int) -> list[Hits]:
        """Return what hits ``features`` ``[N, ...]``, the output at ``site``, of the images from ``first_image`` on."""
        shape, strides = tuple(features.shape), features.stride()
        place = Place(site.name, shape, strides, number.bits, number.signed, site.macs_per_value)
        if first_image != self._first_image or place in self._met:
            self._begin(place, number, features, first_image)
        self._met[place] = site
        drawn = self._drawn.pop(place, None)
        return self._draw(place, site, number, features, first_image) if drawn is None else drawn

    def _begin(self, place: Place, number: Number, features: Tensor, first_image: int) -> None:
        """Begin a pass at ``place``: draw what hits all that is expected of it."""
        expected, self._met = _PASSES.setdefault(self._model, _Passes()).begin()
        self._first_image, self._drawn = first_image, {}
        # What hits float words may depend on their neighbours, which are not there yet.
        if next(iter(expected), None) != place or not isinstance(number, FixedPoint):
            return
        events = 0
        for later, site in expected.items():
            if events > MOST_EVENTS or not isinstance(site.number, FixedPoint):
                return
            try:
                self._drawn[later] = self._draw(later, site, site.number, features, first_image)
            except FaultError:
                return  # the layer that it concerns says so, if the pass gets there
            events += sum(hits.planned for hits in self._drawn[later])

    def _draw(self, place: Place, site: Site, number: Number, clean: Tensor, first_image: int) -> list[Hits]:
        """Return what hits ``place``; of fixed-point numbers nobody looks at ``clean``."""
        images, found = range(first_image, first_image + place.shape[0]), []
        for index, fault in self._faults:
            if applies_to(fault, site):
                plan = self._source.site_plan(site, index, images)
                effect = effect_of(fault, plan.events_from(first_image), number, clean)
                offsets = storage_offsets(effect.element, place.shape, place.strides)
                found.append(Hits(index, len(plan), effect, offsets))
        return found
