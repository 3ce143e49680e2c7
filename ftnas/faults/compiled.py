"""A network compiled once that runs on any chip: faults are inputs of the graph, so no plan compiles it anew."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults.applying import storage_offsets
from ftnas.faults.chips import Chip, applies_to
from ftnas.faults.codes import MECHANISMS, change_of, effect_of
from ftnas.faults.drawing import parts_of, time_of
from ftnas.faults.events import Events
from ftnas.faults.injection import Injection
from ftnas.faults.kernels import AND
from ftnas.faults.models import Fault, duration
from ftnas.faults.sites import Site, layer_paths, output_site
from ftnas.faults.texts import parse_faults
from ftnas.quantization import (
    ConvertedLayer,
    FixedPoint,
    Number,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    QuantizedSum,
    RedundantCopy,
    quantized_layers,
    tapped,
)


class CompiledNet:
    """A copy of a network in evaluation mode, compiled by ``torch.compile`` as one graph, with room for faults.

    Compilation needs a C++ compiler and 12 to 16 s for a ResNet-20 (``benchmarks/faults.py``), more on a busy machine,
    so it pays for long campaigns only. The compiler rounds some operations differently, so a value may land on the
    neighbouring code: compare compiled with compiled.

    Args:
        model: its ranges are known; each quantised layer runs once in a forward pass. It is left as it is.
        example: a batch ``[N, ...]``; later batches have at most N images.
        faults: those that will be injected, at their highest rate: room is kept for the expected number of hits and
            six standard deviations. Bit and bias faults of fixed-point features, and any faults of weights.
        backend: of ``torch.compile``.

    Raises:
        FaultError: the model or a fault cannot be compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        faults: Fault | str | Sequence[Fault | str],
        *,
        backend: str = "inductor",
    ) -> None:
        self.faults = parse_faults(faults)
        self._model, self._batch = copy.deepcopy(model).eval().requires_grad_(False), len(example)
        watcher = _Watcher(self._model)
        with torch.no_grad(), tapped(watcher):
            self._model(example)
        self._seen = watcher.seen
        twin = copy.deepcopy(self._model)
        for module in twin.modules():
            if callable(fix_number := getattr(module, "fix_number_", None)):
                fix_number()  # of a module behind layers, which computes in their format
        self._layers = {path: self._prepare(twin, path) for path in self._seen}
        # Isolated, since all nets of one class have the same code and only eight graphs of that are allowed.
        self._run = torch.compile(  # type: ignore[call-overload]
            twin, fullgraph=True, dynamic=False, backend=backend, isolate_recompiles=True
        )
        self._weights_of: tuple[object, ...] | None = None

    def __call__(
        self,
        images: Tensor,
        *,
        faults: Fault | str | Sequence[Fault | str] | None = None,
        chip: int = 0,
        study: str = "ftnas",
        first_image: int = 0,
    ) -> Tensor:
        """Return what ``inject`` with the same arguments would let the model compute for ``images`` ``[n, ...]``.

        Args:
            images: at most as many as in the example.
            faults: models as at construction, in the same order, at rates no higher than there; those by default.
            chip: number of the chip in the study.
            study: name of the study.
            first_image: which image of the data set the batch begins with.

        Raises:
            FaultError: there are more images or faults than there is room for.
        """
        if len(images) > self._batch:
            raise FaultError(f"compiled for batches of at most {self._batch} images, got {len(images)}")
        source = Chip(study, chip, self.faults if faults is None else parse_faults(faults))
        self._check(source.faults)
        with torch.no_grad():
            self._put_weights(source, first_image)
            for layer in self._layers.values():
                layer.put(source, range(first_image, first_image + len(images)))
            missing = self._batch - len(images)
            padded = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
            logits: Tensor = self._run(padded)
            return logits[: len(images)]

    def _prepare(self, twin: nn.Module, path: str) -> _FixedLayer:
        layer = _FixedLayer(quantized_layers(twin)[path], self._seen[path], self.faults, self._batch)
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, layer)
        return layer

    def _check(self, faults: Sequence[Fault]) -> None:
        if [fault.name for fault in faults] != [fault.name for fault in self.faults]:
            raise FaultError(f"compiled for {', '.join(fault.name for fault in self.faults)}, in this order")

    def _put_weights(self, source: Chip, first_image: int) -> None:
        """Give the layers the weights of the chip, unless they have them."""
        lasting = all(duration(fault) == "permanent" for fault in source.faults if fault.target == "weights")
        key = (source, None if lasting else first_image)
        if key == self._weights_of:
            return
        injection = Injection(self._model, source, first_image=first_image, gradient="masked")
        layers = quantized_layers(self._model)
        for path, fixed in self._layers.items():
            seen = self._seen[path]
            if seen.weight is not None and seen.weight_number is not None:
                faulty = injection.weight(layers[path], seen.weight, seen.weight_number)
                storage = layers[path].storage
                fixed.weight.copy_(faulty if storage is None else storage.read(faulty, seen.weight))
        self._weights_of = key


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one layer computed with: the site of its output, and its weight on the grid.

    Attributes:
        order: the dimensions of the output as they lie in memory, the outermost first.
    """

    site: Site
    order: tuple[int, ...]
    weight: Tensor | None
    weight_number: Number | None


class _Watcher:
    """A tap that notes what each layer computes with."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[str, _Seen] = {}
        self._paths, self._weights = layer_paths(model), dict[nn.Module, tuple[Tensor, Number]]()

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Note the weight."""
        self._weights[layer] = (weight.detach().clone(), number)
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Note the output's format and shape."""
        path = self._paths[layer]
        if path in self.seen or not isinstance(layer, QuantizedLayer):
            raise FaultError(f"{path} runs more than once in a forward pass; such a model cannot be compiled here")
        site = output_site(path, layer, number, tuple(features.shape[1:]))
        self.seen[path] = _Seen(site, features.dim_order(), *self._weights.get(layer, (None, None)))


class _FixedLayer(nn.Module):
    """A quantised layer whose formats are constants of the graph, and whose weight and faults are inputs of it."""

    weight: Tensor

    def __init__(self, layer: QuantizedLayer, seen: _Seen, faults: Sequence[Fault], batch: int) -> None:
        super().__init__()
        number = seen.site.number
        if not isinstance(number, FixedPoint) or isinstance(number.scale, tuple):
            raise FaultError(f"{seen.site.name}: only fixed-point outputs can be compiled, got {number}")
        scale = float(number.scale)
        self.layer, self.site = layer, seen.site
        self.scale, self.low, self.high = scale, number.low, number.high
        self.number, self.storage = number, layer.storage
        if seen.weight is not None:
            self.register_buffer("weight", seen.weight.clone())
        self.hits = nn.ModuleDict(
            {
                str(index): _Hits(seen, number, fault, scale=scale, images=batch)
                for index, fault in enumerate(faults)
                if applies_to(fault, seen.site)
            }
        )

    def forward(self, x: Any, quantization: object = None) -> Tensor:
        """Return the faulty output on its grid; the choice of numbers was made when the layer was watched."""
        y: Tensor = self._compute(x)
        y = (y / self.scale).clamp(self.low, self.high).round() * self.scale
        y = y if self.storage is None else self.storage.output(y, self.number)
        for hits in self.hits.values():
            y = hits(y)
        return y

    def _compute(self, x: Any) -> Tensor:
        if isinstance(self.layer, QuantizedSum | RedundantCopy) and self.layer.kind == "sum":
            return self.layer.total(x)
        if isinstance(self.layer, QuantizedConv2d | QuantizedLinear | ConvertedLayer | RedundantCopy):
            return self.layer.product(x, self.weight)
        raise FaultError(f"{self.site.name}: {type(self.layer).__name__} cannot be compiled")

    def put(self, source: Chip, images: range) -> None:
        """Take what fails at ``images`` of the chip ``source``."""
        for index, hits in self.hits.items():
            if isinstance(hits, _Hits):
                plan = source.site_plan(self.site, int(index), images)
                hits.put(source.faults[int(index)], plan.events_from(images.start))


class _Hits(nn.Module):
    """Room for the faults of one model at one output; unused places add nothing to the first value.

    Raises:
        FaultError: the fault does more to a code than setting, flipping and adding bits.
    """

    index: Tensor
    numbers: Tensor

    def __init__(self, seen: _Seen, number: FixedPoint, fault: Fault, *, scale: float, images: int) -> None:
        super().__init__()
        if change_of(fault) is None:
            raise FaultError(f"{fault} cannot be compiled; inject it into the model itself")
        room, mechanism = capacity(fault, seen.site, images), MECHANISMS[type(fault)]
        self.site, self.number, self.room, self.order = seen.site, number, room, seen.order
        self.shape = (images, *(seen.site.shape or ()))
        self.strides = torch.empty_permuted(self.shape, seen.order, device="meta").stride()
        self.fault, self.change, self.scale = fault, mechanism.change, scale
        # Numbers that change no code: joined to others, they leave those as they are.
        self.nothing = torch.tensor([-1 if join == AND else 0 for join in mechanism.join], dtype=torch.int32)[:, None]
        self.register_buffer("index", torch.zeros(room, dtype=torch.int64))
        self.register_buffer("numbers", self.nothing.repeat(1, room))
        self.used = 0

    def forward(self, y: Tensor) -> Tensor:
        """Return ``y`` with its faults."""
        stored = y.permute(self.order)
        flat = stored.reshape(-1)  # so that a value has one index, not one for each dimension
        codes = (flat[self.index] / self.scale).round().to(torch.int32)
        difference = (self.change(self.fault, codes, self.numbers, self.number, codes) - codes).to(y.dtype) * self.scale
        faulty = flat.index_put((self.index,), difference, accumulate=True).view(stored.shape)
        return faulty.permute([self.order.index(dimension) for dimension in range(y.dim())])

    def put(self, fault: Fault, events: Events) -> None:
        """Take ``events`` of ``fault``, which replace those before."""
        effect = effect_of(fault, events, self.number, self.index)
        count = len(effect.element)
        if count > self.room:
            raise FaultError(f"{self.site.name}: {count} values fail, the net was compiled with room for {self.room}")
        self.index[count : self.used] = 0
        self.numbers[:, count : self.used] = self.nothing
        self.index[:count] = torch.from_numpy(storage_offsets(effect.element, self.shape, self.strides))
        self.numbers[:, :count] = torch.from_numpy(effect.numbers)
        self.used = count


def capacity(fault: Fault, site: Site, images: int) -> int:
    """Return room for the values of ``images`` that fail at ``site``: the expected number and six deviations."""
    # Faults that last are drawn for one image and met by all, so their number varies by whole batches.
    drawn = images if duration(fault) == "transient" else 1
    parts = parts_of(fault, site)
    values_of_part = max(1, site.values // parts)
    expected = parts * drawn * -math.expm1(-time_of(fault, site))
    room = values_of_part * math.ceil(expected + 6 * math.sqrt(expected) + 8) * (images // drawn)
    return min(site.values * images, room)
