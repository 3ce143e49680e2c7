"""What a correction unit or a voter makes of the codes of redundant copies: integer functions of single values.

Codes are whole numbers in tensors of any one shape and any type. Splitting and its correction follow arXiv 2306.09973
in spirit; the logic of that unit is not public, so mask and minimum are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ftnas.quantization import FixedPoint, half_range

Method = Literal["split", "split_weights", "duplicate_min", "tmr", "guard", "bound"]
Rule = Literal["min", "mean", "sum", "majority", "median", "zero", "clip"]
# (codes of each copy, their format, limits by channel that broadcast) -> corrected codes
Correct: TypeAlias = Callable[[Sequence[Tensor], FixedPoint, Sequence[Tensor]], Tensor]


def masked(half: Tensor, other: Tensor, number: FixedPoint) -> Tensor:
    """Return ``half`` as a half can be: its top bit 0, or, signed, its two top bits equal.

    Where the two top bits differ, one of them has flipped; of the two values that the half then may have had, it is the
    one nearer to the ``other`` half, the lower one where both are as near.
    """
    low, high = half_range(number)
    if not number.signed:
        return torch.where(half > high, half - (high + 1), half)
    size = high + 1
    rest = torch.where(half < 0, half + 2 * size, half - size)  # without the two top bits
    repaired = torch.where(2 * (rest - other) < size, rest, rest - size)
    return torch.where((half < low) | (half > high), repaired, half)


def doubtful_halves(upper: Tensor, lower: Tensor, total: Tensor, number: FixedPoint) -> Tensor:
    """Return where values ``upper`` and ``lower``, which make ``total``, are not the halves of one code.

    Where they are not flagged, no rule changes their sum: they are apart by no step or one, and two halves whose top
    bits are wrong add up to what is beyond the range.
    """
    scale = torch.as_tensor(number.scale, dtype=upper.dtype)
    apart = (upper - lower).sub_(scale / 2).abs_() > 0.75 * scale
    return apart | (total > (number.high - 0.5) * scale) | (total < (number.low - 0.5) * scale)


def differing(copies: Sequence[Tensor]) -> Tensor:
    """Return where ``copies`` are not all the same."""
    found = copies[0] != copies[1]
    for copy in copies[2:]:
        found = found | (copies[0] != copy)
    return found


def smaller_half(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the code that two halves make: their sum, or twice the smaller one where they are no halves of one code.

    An upward flip is repaired to within one step. A downward one is not: behind a rectifier it costs at most the value.
    """
    upper, lower = _masked(codes, number)
    apart = upper - lower
    return torch.where((apart == 0) | (apart == 1), upper + lower, 2 * torch.minimum(upper, lower))


def smaller_near_half(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the same for halves by weights, which may be apart by as much as ``limits[0]`` without a fault."""
    upper, lower = _masked(codes, number)
    near = (upper - lower).abs() <= limits[0]
    return torch.where(near, upper + lower, 2 * torch.minimum(upper, lower))


def masked_sum(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the sum of two masked halves, which is the mean of what either says."""
    upper, lower = _masked(codes, number)
    return upper + lower


def plain_sum(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the sum of two halves, nothing corrected but what is beyond the format: for comparison."""
    return (codes[0] + codes[1]).clamp(number.low, number.high)


def smaller(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the smaller of two copies."""
    return torch.minimum(codes[0], codes[1])


def rounded_mean(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the mean of two copies, a half rounded down."""
    total = codes[0] + codes[1]
    return (total / 2).floor() if total.is_floating_point() else total >> 1


def majority(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the bitwise majority of three copies."""
    one, two, three = (code.to(torch.int32) for code in codes)
    return ((one & two) | (one & three) | (two & three)).to(codes[0].dtype)


def median(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return the middle one of three copies."""
    one, two, three = codes
    return torch.maximum(torch.minimum(one, two), torch.minimum(torch.maximum(one, two), three))


def zeroed(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return codes with 0 for those below ``limits[0]`` or above ``limits[1]`` (after Ranger, DSN 2021)."""
    (code,), (low, high) = codes, limits
    return torch.where((code < low) | (code > high), torch.zeros_like(code), code)


def clipped(codes: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
    """Return codes cut off below ``limits[0]`` and above ``limits[1]``."""
    return torch.minimum(torch.maximum(codes[0], limits[0]), limits[1])


def _masked(codes: Sequence[Tensor], number: FixedPoint) -> tuple[Tensor, Tensor]:
    halves = torch.stack(list(codes))  # at once: of few values, what counts is how many operations there are
    upper, lower = masked(halves, halves.flip(0), number)
    return upper, lower


CORRECTIONS: Mapping[tuple[Method, Rule], Correct] = {
    ("split", "min"): smaller_half,
    ("split", "mean"): masked_sum,
    ("split", "sum"): plain_sum,
    ("split_weights", "min"): smaller_near_half,
    ("split_weights", "mean"): masked_sum,
    ("split_weights", "sum"): plain_sum,
    ("duplicate_min", "min"): smaller,
    ("duplicate_min", "mean"): rounded_mean,
    ("tmr", "majority"): majority,
    ("tmr", "median"): median,
    ("guard", "zero"): zeroed,
    ("guard", "clip"): clipped,
}

COPIES: Mapping[Method, int] = {"split": 1, "split_weights": 1, "duplicate_min": 1, "tmr": 2, "guard": 0, "bound": 0}
LIMITS: Mapping[Method, int] = {"split_weights": 1, "guard": 2}  # calibrated numbers for each channel

# Of one signed value, in integer operations: masks of two halves 6, difference, comparison, sum, minimum, double and
# choice 6; a vote 5; two comparisons and a choice 3.
OPERATIONS: Mapping[tuple[Method, Rule], int] = {
    ("split", "min"): 12,
    ("split", "mean"): 7,
    ("split", "sum"): 1,
    ("split_weights", "min"): 12,
    ("split_weights", "mean"): 7,
    ("split_weights", "sum"): 1,
    ("duplicate_min", "min"): 1,
    ("duplicate_min", "mean"): 2,
    ("tmr", "majority"): 5,
    ("tmr", "median"): 4,
    ("guard", "zero"): 3,
    ("guard", "clip"): 2,
}


TABLE_BITS = 8


@cache
def split_table(rule: Rule, bits: int, signed: bool) -> Tensor:
    """Return the codes that ``rule`` makes of all pairs of halves, first by the upper one: ``[2 ** bits * 2 ** bits]``.

    To look up a few faulty values takes a fourth of the time of the rule's thirty small operations. Not to be changed.
    """
    number = FixedPoint(bits, 1.0, signed)
    codes = torch.arange(number.low, number.high + 1, dtype=torch.float32)
    upper, lower = torch.meshgrid(codes, codes, indexing="ij")
    return CORRECTIONS["split", rule]((upper, lower), number, ()).flatten()


def rules_of(method: Method) -> tuple[Rule, ...]:
    """Return the rules that ``method`` can go by, its own first."""
    return ("zero",) if method == "bound" else tuple(rule for name, rule in CORRECTIONS if name == method)
