"""What hits the tensors of a forward pass, drawn in one go at the first of them where the pass can be foreseen.

Drawing is many small steps. Between two convolutions, which leave none of their code and data in the processor's
caches, they take three to five times as long as one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

import numpy as np
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults.applying import storage_offsets
from ftnas.faults.chips import Chip, applies_to
from ftnas.faults.codes import Effect, effect_of, reads_neighbours
from ftnas.faults.events import Integers
from ftnas.faults.models import Fault, Target, duration
from ftnas.faults.plans import Plan
from ftnas.faults.sites import Site, is_at
from ftnas.quantization import Number, QuantizedLayer

NO_IMAGES = range(0)  # of which no pass is
NOTHING = Effect(np.zeros(0, np.int64), np.zeros((1, 0), np.int32))

# Of what is kept for later layers (40 MB). Where more fails, small steps are not what takes the time.
MOST_EVENTS = 2**20


class Hits(NamedTuple):
    """What one fault model does to a weight, or to an output of a batch.

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
    """A tensor as far as what hits it depends on it: not on its scale, which moves as a net trains."""

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    bits: int
    signed: bool
    macs_per_value: int


# Whose tensor it is, and its site. A layer is not kept alive for this.
_Met = tuple[ReferenceType[QuantizedLayer], Site]


@dataclass(slots=True)
class _Passes:
    """The tensors that a model's last two forward passes asked for, in order."""

    before: dict[Place, _Met] = field(default_factory=dict)
    last: dict[Place, _Met] = field(default_factory=dict)

    def begin(self) -> tuple[dict[Place, _Met], dict[Place, _Met]]:
        """Return what a new pass will ask for, and where to note what it does ask for.

        If the last two passes differed, as those of a supernet's paths do, there is nothing to go by.
        """
        last, noted = self.last, dict[Place, _Met]()
        before, self.before, self.last = self.before, last, noted
        # A copy, as another thread may be in the middle of its pass.
        return (dict(last) if list(before) == list(last) else {}), noted


_PASSES: Mapping[Target, WeakKeyDictionary[nn.Module, _Passes]] = {
    "weights": WeakKeyDictionary(),
    "features": WeakKeyDictionary(),
}


class Ahead:
    """Draws what hits the weights, or the outputs, of ``model``: the same, whether ahead or when a layer asks.

    Args:
        model: whose passes they are.
        source: what fails.
        target: which of the two.
        faults: those of ``target``, with their index in the list of ``source``.
    """

    def __init__(
        self, model: nn.Module, source: Chip | Plan, target: Target, faults: Sequence[tuple[int, Fault]]
    ) -> None:
        self._source, self._faults = source, faults
        self._model, self._passes = model, _PASSES[target]
        self._images: range | None = NO_IMAGES
        self._met: dict[Place, _Met] = {}
        self._drawn: dict[Place, list[Hits]] = {}
        self._expected: dict[QuantizedLayer, tuple[Place, _Met]] = {}

    def ready(
        self, layer: QuantizedLayer, number: Number, values: Tensor, images: range
    ) -> tuple[str, list[Hits]] | None:
        """Return the site of ``values``, the output of ``layer``, and what hits them, if that was drawn ahead.

        Else ``hits`` says so. Between two convolutions a line of code that is not run is worth ten elsewhere.
        """
        if images != self._images or layer not in self._expected:
            return None
        place, met = self._expected[layer]
        known = place.shape, place.strides, place.bits, place.signed
        if known != (values.shape, values.stride(), number.bits, number.signed) or place not in self._drawn:
            return None
        self._met[place] = met
        return place.name, self._drawn.pop(place)

    def hits(
        self, layer: QuantizedLayer, site: Site, *, number: Number, values: Tensor, images: range | None
    ) -> list[Hits]:
        """Return what hits ``values`` of ``layer``, a weight or the output ``[N, ...]``, in a pass of ``images``.

        Args:
            layer: whose they are.
            site: of the values.
            number: their format.
            values: of which nothing is changed.
            images: those of an output; of a weight the first, or ``None`` where its faults last.
        """
        place = Place(site.name, tuple(values.shape), values.stride(), number.bits, number.signed, site.macs_per_value)
        if images != self._images or place in self._met:
            self._begin(place, number, values, images)
        self._met[place] = ref(layer), site
        drawn = self._drawn.pop(place, None)
        return self._draw(place, site, number, values, images) if drawn is None else drawn

    def _begin(self, place: Place, number: Number, values: Tensor, images: range | None) -> None:
        """Begin a pass at ``place``: draw what hits all that is expected of it."""
        expected, self._met = self._passes.setdefault(self._model, _Passes()).begin()
        self._images, self._drawn, self._expected = images, {}, {}
        if next(iter(expected), None) != place:
            return
        events = 0
        for later, (layer, site) in expected.items():
            # What is not there yet cannot be read.
            if events > MOST_EVENTS or site.number is None or self._reads_values(site.number):
                return
            try:
                self._drawn[later] = self._draw(later, site, site.number, values, images)
            except FaultError:
                return  # the layer that it concerns says so, if the pass gets there
            events += sum(hits.planned for hits in self._drawn[later])
            self._expect(later, layer, site)

    def _expect(self, place: Place, layer: ReferenceType[QuantizedLayer], site: Site) -> None:
        """Have ``place`` ready for the layer that asked for it last, if that is what and where it was."""
        there, path = layer(), site.name.rpartition(".")[0]
        if there is not None and is_at(self._model, path, there) and there.macs_per_value == place.macs_per_value:
            self._expected[there] = place, (layer, site)

    def _reads_values(self, number: Number) -> bool:
        return any(reads_neighbours(fault, number) for _, fault in self._faults)

    def _draw(self, place: Place, site: Site, number: Number, clean: Tensor, images: range | None) -> list[Hits]:
        """Return what hits ``place``; only where ``_reads_values`` says so, anybody looks at ``clean``."""
        found = []
        for index, fault in self._faults:
            if not applies_to(fault, site):
                continue
            lasts = site.kind == "weight" and duration(fault) == "permanent"
            plan = self._source.site_plan(site, index, None if lasts else images)
            if not len(plan):
                found.append(Hits(index, 0, NOTHING, NOTHING.element))
                continue
            events = plan.events if site.kind == "weight" or images is None else plan.events_from(images.start)
            effect = effect_of(fault, events, number, clean)
            found.append(Hits(index, len(plan), effect, storage_offsets(effect.element, place.shape, place.strides)))
        return found
