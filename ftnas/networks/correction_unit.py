"""What makes one output of a layer and its redundant copies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ftnas.networks.correction import CORRECTIONS, LIMITS, TABLE_BITS, Method, differing, doubtful_halves, split_table
from ftnas.networks.protection import Protection
from ftnas.quantization import FixedPoint, Quantization, QuantizedLayer, fixed_point

FEW = 16  # one value in so many takes as long to pick out and put back as all take to compute
AT_ONCE = 1 << 15  # values that are merged together: what lies between stays in the cache
# Without faults their unit gives what the layer alone would.
PURELY_REDUNDANT = ("split", "duplicate_min", "tmr")


class CorrectionUnit(nn.Module):
    """Merges the codes of a layer's output with those of its copies, or restricts them to a range.

    Attributes:
        protection: of the layer.
        channels: which channels of the layer's output the copies are of; ``None`` where it is all of them.
    """

    channels: Tensor | None
    _fixed: FixedPoint | None

    def __init__(self, layer: QuantizedLayer, protection: Protection, channels: Tensor | None) -> None:
        super().__init__()
        self._whole, self._fixed = [layer], None
        self.protection = protection
        self.register_buffer("channels", channels, persistent=False)
        device = layer.feature_limit.device
        for index in range(LIMITS.get(protection.method, 0)):
            self.register_buffer(f"limit_{index}", torch.zeros(len(protection.channels), device=device))
        self.forget_()

    @property
    def limits(self) -> list[Tensor]:
        """Numbers that were calibrated for each channel, ``[k]``, in codes."""
        return [getattr(self, f"limit_{index}") for index in range(LIMITS.get(self.protection.method, 0))]

    @property
    def quantization(self) -> Quantization:
        """The layer's own."""
        return self._whole[0].quantization

    def number(self, quantization: Quantization | None = None) -> FixedPoint:
        """Return the format of the codes."""
        return self._fixed or fixed_point(self._whole[0].feature_number(quantization))

    def fix_number_(self) -> None:
        """Keep the format that the layer has now, as a net does that is compiled."""
        self._fixed = self.number()

    def forget_(self) -> None:
        """Let the unit restrict nothing, until it is calibrated or loaded."""
        ends = (math.inf,) if self.protection.method == "split_weights" else (-math.inf, math.inf)
        for limit, end in zip(self.limits, ends, strict=bool(self.limits)):
            limit.fill_(end)

    def observed(self, terms: Sequence[Tensor], quantization: Quantization | None = None) -> list[Tensor]:
        """Return the limits ``[k]`` that would leave ``terms`` as they are; arguments as of ``forward``."""
        whole, *copies = terms
        first = whole if self.channels is None else whole.index_select(1, self.channels)
        scale = self.number(quantization).scale_of(whole)
        codes = [(term / scale).round().transpose(0, 1).flatten(1) for term in (first, *copies)]
        if self.protection.method == "split_weights":
            return [(codes[0] - codes[1]).abs().amax(1)]
        return [codes[0].amin(1), codes[0].amax(1)]

    def joined(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
        """Return the limits that two sets of observed ones need together."""
        low = self.protection.method == "guard"  # whose first limit is the lowest code
        joins = (torch.minimum if low else torch.maximum, torch.maximum)
        return [join(*pair) for join, *pair in zip(joins, one, other, strict=False)]

    def settle_(self, limits: Sequence[Tensor]) -> None:
        """Take ``limits``, as ``observed`` returns them."""
        for held, limit in zip(self.limits, limits, strict=True):
            held.copy_(limit)

    def forward(self, terms: Sequence[Tensor], quantization: Quantization | None = None) -> Tensor:
        """Return the corrected output ``[N, C, ...]``.

        Args:
            terms: the layer's output ``[N, C, ...]``, then those of the copies ``[N, k, ...]``.
            quantization: of the output, by default the layer's own.
        """
        whole, *copies = terms
        number = self.number(quantization)
        if self.channels is None:
            return self._corrected(terms, number)
        first = whole.index_select(1, self.channels)
        return whole.index_copy(1, self.channels, self._corrected([first, *copies], number))

    def _corrected(self, terms: Sequence[Tensor], number: FixedPoint) -> Tensor:
        if self.protection.method in PURELY_REDUNDANT and not torch.compiler.is_compiling():
            return self._repaired(terms, number)
        limits = [limit.view(-1, *[1] * (terms[0].dim() - 2)) for limit in self.limits]
        found = self.merged(terms, number, limits)
        if not any(term.requires_grad for term in terms):
            return found
        combined = _combined(terms, self.protection.method)
        # As with any fault: a constant that the gradient passes.
        combined.detach().copy_(found)
        return combined

    def merged(self, terms: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor] = ()) -> Tensor:
        """Return what the rule makes of values ``terms`` of any one shape; ``limits`` broadcast."""
        scale, method, rule = number.scale_of(terms[0]), self.protection.method, self.protection.rule
        if method == "split" and number.bits <= TABLE_BITS and not torch.compiler.is_compiling():
            halves = torch.stack([term.detach() for term in terms]).div_(scale).round_()
            return split_table(rule, number.bits, number.signed).to(halves)[_index(halves, number)].mul_(scale)
        codes = [(term.detach() / scale).round_() for term in terms]
        return CORRECTIONS[method, rule](codes, number, limits) * scale

    def _repaired(self, terms: Sequence[Tensor], number: FixedPoint) -> Tensor:
        """Return the same, computed only where copies are not what one code gives: a sixth of the time."""
        combined, scale = _combined(terms, self.protection.method), number.scale_of(terms[0])
        values, held = combined.detach(), [term.detach() for term in terms]
        if self.protection.method == "split":
            doubtful = doubtful_halves(held[0], held[1], values, number)
            values.div_(scale).round_().mul_(scale)  # the sum of two products is not always the product of the sum
        else:
            doubtful = differing(held)
            values.copy_(held[0])
        count = int(doubtful.count_nonzero())
        if count * FEW > doubtful.numel():
            images = max(1, AT_ONCE * len(values) // values.numel())
            for part, *own in zip(values.split(images), *(term.split(images) for term in held), strict=True):
                part.copy_(self.merged(own, number))
        elif count:
            where = doubtful.nonzero(as_tuple=True)
            values[where] = self.merged([term[where] for term in held], number)
        return combined


def _index(halves: Tensor, number: FixedPoint) -> Tensor:
    """Return where ``split_table`` has what the codes of two ``halves`` ``[2, ...]``, which are changed, make."""
    upper, lower = halves.sub_(number.low).long().unbind()
    return upper * (1 << number.bits) + lower


def _combined(terms: Sequence[Tensor], method: Method) -> Tensor:
    """Return what ``terms`` make where no fault is, as a new tensor: the sum of halves, the mean of equals."""
    if method in ("split", "split_weights"):
        return terms[0] + terms[1]
    if not any(term.requires_grad for term in terms):
        return terms[0].clone()
    return torch.stack(list(terms)).mean(0)
