"""A hardened layer under a tap, without work that its copies would only repeat.

Where the weights of a copy are the layer's, so is its product: it is computed and rounded once, and every output is
stored, and may fail, on its own. Where the tap says which values it has touched, only those are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ftnas.faults.applying import flat_storage, storage_index
from ftnas.faults.events import Integers
from ftnas.networks.correction_unit import CorrectionUnit
from ftnas.quantization import (
    FixedPoint,
    Number,
    Quantization,
    QuantizedLayer,
    RedundantCopy,
    Touched,
    current_tap,
    half_of,
    skipped,
)

Input: TypeAlias = Tensor | Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class HardenedParts:
    """What a hardened layer consists of.

    Attributes:
        layer: computes all channels.
        copies: compute some again.
        unit: makes one output of all.
        channels: which the copies compute, ``None`` where it is all of them.
        read: returns what the copies read of an input.
        splits: whether outputs are stored as halves.
    """

    layer: QuantizedLayer
    copies: Sequence[RedundantCopy]
    unit: CorrectionUnit
    channels: Tensor | None
    read: Callable[[Input], Input]
    splits: bool


def shared_output(parts: HardenedParts, x: Input, quantization: Quantization | None = None) -> Tensor:
    """Return the corrected output ``[N, C, ...]`` under the active tap; no gradient passes.

    Args:
        parts: of the layer, whose storage is integer codes, and whose ranges nothing measures now.
        x: its input.
        quantization: of the output, by default the layer's own.
    """
    layer, choice = parts.layer, quantization or parts.layer.quantization
    numbers = () if quantization is None else (quantization,)
    if (known := skipped(layer)) is not None:
        return _joined(parts, [known, *(copy(parts.read(x), *numbers) for copy in parts.copies)], quantization)
    weights = None if layer.kind == "sum" else _Weights(layer, choice)
    stored = _Stored(parts, _product(layer, x, None if weights is None else weights.faulty), choice)
    stored.take(stored.first, _tapped(layer, stored.first, stored.number))
    for copy in parts.copies:
        stored.take(*_copied(copy, stored, x, weights))
    return stored.merged(quantization)


def _joined(parts: HardenedParts, terms: Sequence[Tensor], quantization: Quantization | None) -> Tensor:
    found: Tensor = parts.unit(terms, quantization)
    return found


def _product(layer: QuantizedLayer, x: Input, weight: Tensor | None) -> Tensor:
    """Return what ``layer`` or a copy computes of ``x``, not on a grid."""
    found: Tensor = layer.total(x) if weight is None else layer.product(x, weight)  # type: ignore[operator]
    return found


def _tapped(layer: QuantizedLayer, y: Tensor, number: FixedPoint) -> Touched:
    """Let the active tap change ``y``, and return what it may have changed."""
    tap = current_tap()
    return np.zeros(0, np.int64) if tap is None else tap.output(layer, y, number)


def _copied(copy: RedundantCopy, stored: _Stored, x: Input, weights: _Weights | None) -> tuple[Tensor, Touched]:
    """Return what ``copy`` stores ``[N, k, ...]``, and which of it may not be what it was derived as."""
    if (known := skipped(copy)) is not None:
        return known, None
    if weights is not None and (own := weights.of(copy)) is not None:
        return copy.quantized_output(_product(copy, stored.parts.read(x), own), stored.choice), None
    # Who follows what a layer reads has to see that this one reads the same.
    for tensor in (x,) if isinstance(x, Tensor) else x:
        tensor.detach()
    derived = stored.derived()
    return derived, _tapped(copy, derived, stored.number)


class _Weights:
    """The weight of a layer, and those of its copies, as they are read.

    Attributes:
        faulty: the layer's.
    """

    def __init__(self, layer: QuantizedLayer, choice: Quantization) -> None:
        self._choice = choice
        self._stored, self._number = layer.stored_weight(layer.weight, choice)
        self.faulty = self._read(layer, self._stored, self._number)

    def of(self, copy: RedundantCopy) -> Tensor | None:
        """Return the weight of ``copy``, ``None`` where it is the layer's."""
        if copy.has_own_weight:
            found = copy.quantized_weight(copy.weight, self._choice)
        else:
            stored = copy.rows(self._stored)
            number = copy.weight_number(copy.weight, self._choice) if self._number.per_channel else self._number
            found = self._read(copy, stored, number)
            if found is stored and self.faulty is self._stored:
                return None
        return None if torch.equal(found, copy.rows(self.faulty)) else found

    def _read(self, layer: QuantizedLayer, stored: Tensor, number: Number) -> Tensor:
        tap = current_tap()
        return stored if tap is None else tap.weight(layer, stored, number)


class _Stored:
    """What layer and copies store of one product, before and after faults.

    Attributes:
        parts: of the layer.
        first: what the layer stores ``[N, C, ...]``.
        number: the format of all.
        choice: the quantisation that says so.
    """

    def __init__(self, parts: HardenedParts, y: Tensor, choice: Quantization) -> None:
        number = parts.layer.feature_number(choice)
        if not isinstance(number, FixedPoint) or number.per_channel:
            raise TypeError(f"redundant outputs are integer codes of one scale, not {number}")
        self.parts, self.number, self.choice = parts, number, choice
        self._scale = number.scale_of(y)
        self._terms: list[Tensor] = []
        self._touched: list[Touched] = []
        codes = y.div_(self._scale).clamp_(number.low, number.high).round_()
        if parts.splits:
            self.first, self._lower, self._right = self._halves(codes)
        else:
            self.first = codes.mul_(self._scale)
            self._right = self._chosen(self.first)

    def _halves(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of ``codes``, which are changed, upper halves among them, lower ones, and what they make."""
        # A half ends where half of the range does.
        own = (codes if self.parts.channels is None else self._chosen(codes)).clamp_(max=self.number.high - 1)
        upper, lower = (half_of(own, upper=is_upper) for is_upper in (True, False))
        if self.parts.channels is not None:
            codes[:, self.parts.channels] = upper
            upper = codes
        return upper.mul_(self._scale), lower.mul_(self._scale), own.mul_(self._scale)

    def _chosen(self, values: Tensor) -> Tensor:
        """Return the copied channels of ``values`` ``[N, C, ...]`` as a tensor of their own."""
        # Indexing keeps the layout, and takes a fourth of the time of index_select where channels come last.
        return values.clone() if self.parts.channels is None else values[:, self.parts.channels]

    def derived(self) -> Tensor:
        """Return what a copy stores of the same product ``[N, k, ...]``, as a new tensor."""
        return self._lower if self.parts.splits else self._right.clone()

    def take(self, term: Tensor, touched: Touched) -> None:
        """Take what a layer or copy stores after faults."""
        self._terms.append(term)
        self._touched.append(touched)

    def merged(self, quantization: Quantization | None) -> Tensor:
        """Return what the unit makes of all; where it is known what was touched, of that alone."""
        known = [touched for touched in self._touched if touched is not None]
        if len(known) < len(self._touched):
            return _joined(self.parts, self._terms, quantization)
        places, channels = _Places(self.first.shape, self.parts.channels), self.parts.channels
        copied = np.concatenate([places.copied(known[0]), *known[1:]])
        if len(copied):
            values = [_at(self.first, places.whole(copied)), *(_at(term, copied) for term in self._terms[1:])]
            _put_(self._right, copied, self.parts.unit.merged(values, self.number))
        if channels is None:
            return self._right
        self.first[:, channels] = self._right
        return self.first


class _Places:
    """Elements of ``[N, C, ...]`` in logical order, and the same ones of ``[N, k, ...]``, which holds ``channels``."""

    def __init__(self, shape: Sequence[int], channels: Tensor | None) -> None:
        self._all, self._values = shape[1], prod(shape[2:])
        self._channels = None if channels is None else channels.cpu().numpy()

    def copied(self, elements: Integers) -> Integers:
        """Return where those of ``elements`` of ``[N, C, ...]`` that are copied lie in ``[N, k, ...]``."""
        if self._channels is None:
            return elements
        numbers = np.full(self._all, -1)
        numbers[self._channels] = np.arange(len(self._channels))
        row = elements // self._values
        image = row // self._all
        number = numbers[row - image * self._all]
        kept = number >= 0
        return self._renumbered(elements[kept], row[kept], image[kept] * len(self._channels) + number[kept])

    def whole(self, elements: Integers) -> Integers:
        """Return where ``elements`` of ``[N, k, ...]`` lie in ``[N, C, ...]``."""
        if self._channels is None:
            return elements
        row = elements // self._values
        image = row // len(self._channels)
        channel = self._channels[row - image * len(self._channels)]
        return self._renumbered(elements, row, image * self._all + channel)

    def _renumbered(self, elements: Integers, row: Integers, new: Integers) -> Integers:
        """Return ``elements`` of rows ``row`` at the same places of rows ``new``."""
        found: Integers = elements + (new - row) * self._values
        return found


def _at(values: Tensor, elements: Integers) -> Tensor:
    return flat_storage(values).index_select(0, storage_index(elements, values))


def _put_(values: Tensor, elements: Integers, new: Tensor) -> None:
    flat_storage(values).index_copy_(0, storage_index(elements, values), new)
