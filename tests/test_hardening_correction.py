"""Halves, and what a correction unit makes of a single upset: every code, every bit, either half (proof 4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from ftnas.errors import HardeningError
from ftnas.networks.correction import COPIES, CORRECTIONS, LIMITS, OPERATIONS, Method, Rule, masked, rules_of
from ftnas.networks.protection import LEAST_BITS, METHODS, Protection
from ftnas.quantization import FixedPoint, half_of, half_range
from ftnas.quantization.storage import half_of_weights

FORMATS = [FixedPoint(bits, 1.0, signed) for bits in range(LEAST_BITS, 9) for signed in (True, False)]
KINDS = [torch.int32, torch.float32]  # of hardware and C, and of the modules

formats = pytest.mark.parametrize("number", FORMATS, ids=str)


def codes_of(number: FixedPoint) -> Tensor:
    return torch.arange(number.low, number.high + 1)


def flipped(codes: Tensor, bit: int, number: FixedPoint) -> Tensor:
    """Return ``codes`` with ``bit`` of their two's complement, or plain, form flipped."""
    plain = (codes & (1 << number.bits) - 1) ^ (1 << bit)
    return torch.where(plain > number.high, plain - (1 << number.bits), plain) if number.signed else plain


def halves_of(number: FixedPoint) -> tuple[Tensor, list[Tensor]]:
    """Return every code that can be split, and its two halves."""
    codes = codes_of(number)[:-1]
    return codes, [half_of(codes, upper=True), half_of(codes, upper=False)]


def upsets(copies: Sequence[Tensor], number: FixedPoint) -> list[tuple[int, int, list[Tensor]]]:
    """Return every single upset: in which copy, of which bit, and what the copies then are."""
    found = []
    for copy, bit in itertools.product(range(len(copies)), range(number.bits)):
        hit = list(copies)
        hit[copy] = flipped(copies[copy], bit, number)
        found.append((copy, bit, hit))
    return found


@formats
def test_two_halves_add_up_to_every_code_and_each_fits_half_of_the_range(number: FixedPoint) -> None:
    codes, halves = halves_of(number)
    low, high = half_range(number)
    assert torch.equal(halves[0] + halves[1], codes)
    for half in halves:
        assert low <= int(half.min()) and int(half.max()) <= high
        top, second = (half >> (number.bits - 1)) & 1, (half >> (number.bits - 2)) & 1
        assert torch.equal(top, second if number.signed else torch.zeros_like(top))


@formats
@pytest.mark.parametrize("rule", ["min", "mean", "sum"])
def test_without_an_upset_two_halves_make_the_code(number: FixedPoint, rule: Rule) -> None:
    codes, halves = halves_of(number)
    assert torch.equal(CORRECTIONS["split", rule](halves, number, []), codes)


@formats
def test_an_upward_upset_of_a_half_costs_one_step_at_most_and_no_upset_raises_a_value_by_more(
    number: FixedPoint,
) -> None:
    codes, halves = halves_of(number)
    for copy, _, hit in upsets(halves, number):
        error = CORRECTIONS["split", "min"](hit, number, []) - codes
        upward = hit[copy] > halves[copy]
        assert int(error[upward].abs().max() if upward.any() else 0) <= 1
        assert int(error.max()) <= 1


@formats
def test_a_flipped_top_bit_of_a_half_is_repaired_exactly(number: FixedPoint) -> None:
    codes, halves = halves_of(number)
    for _, bit, hit in upsets(halves, number):
        if bit == number.bits - 1 or (number.signed and bit == number.bits - 2):
            assert torch.equal(CORRECTIONS["split", "min"](hit, number, []), codes), bit


def test_the_plain_sum_repairs_nothing() -> None:
    number = FixedPoint(8, 1.0)
    codes, halves = halves_of(number)
    hit = [flipped(halves[0], 7, number), halves[1]]
    assert int((CORRECTIONS["split", "sum"](hit, number, []) - codes).abs().max()) == 128


@formats
def test_the_smaller_copy_is_never_above_the_code_after_one_upset(number: FixedPoint) -> None:
    codes = codes_of(number)
    for _, _, hit in upsets([codes, codes], number):
        assert bool((CORRECTIONS["duplicate_min", "min"](hit, number, []) <= codes).all())


@formats
@pytest.mark.parametrize("rule", ["majority", "median"])
def test_three_copies_outvote_any_upset_of_one(number: FixedPoint, rule: Rule) -> None:
    codes = codes_of(number)
    for _, _, hit in upsets([codes, codes, codes], number):
        assert torch.equal(CORRECTIONS["tmr", rule](hit, number, []), codes)


def test_a_bitwise_majority_repairs_upsets_of_all_three_copies_in_different_bits() -> None:
    number = FixedPoint(8, 1.0)
    codes = codes_of(number)
    hit = [flipped(codes, bit, number) for bit in (0, 5, 7)]
    assert torch.equal(CORRECTIONS["tmr", "majority"](hit, number, []), codes)
    assert not torch.equal(CORRECTIONS["tmr", "median"](hit, number, []), codes)


@formats
def test_a_mask_leaves_halves_alone_and_gives_halves(number: FixedPoint) -> None:
    _, (upper, lower) = halves_of(number)
    assert torch.equal(masked(upper, lower, number), upper)
    low, high = half_range(number)
    everything = codes_of(number)
    for other in (low, 0, high):
        found = masked(everything, torch.tensor(other), number)
        assert low <= int(found.min()) and int(found.max()) <= high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method, rule", CORRECTIONS)
def test_a_correction_stays_in_the_format_whatever_the_copies_hold(
    method: Method, rule: Rule, kind: torch.dtype
) -> None:
    for number in (FixedPoint(5, 1.0), FixedPoint(5, 1.0, False)):
        copies = torch.meshgrid(*[codes_of(number)] * (1 + COPIES[method]), indexing="ij")
        limits = [torch.tensor(value) for value in ((2,), (3, 9))[LIMITS.get(method, 0) == 2]]
        found = CORRECTIONS[method, rule]([copy.to(kind) for copy in copies], number, limits)
        assert found.dtype == kind and torch.equal(found, found.round())
        assert number.low <= int(found.min()) and int(found.max()) <= number.high


@pytest.mark.parametrize("method, rule", CORRECTIONS)
def test_integers_and_whole_floats_are_corrected_alike(method: Method, rule: Rule) -> None:
    number = FixedPoint(4, 1.0)
    copies = torch.meshgrid(*[codes_of(number)] * (1 + COPIES[method]), indexing="ij")
    limits = [torch.tensor(value) for value in ((1,), (-3, 4))[LIMITS.get(method, 0) == 2]]
    whole = CORRECTIONS[method, rule](copies, number, limits)
    assert torch.equal(CORRECTIONS[method, rule]([copy.float() for copy in copies], number, limits).int(), whole.int())


def test_halves_of_weights_add_up_and_odd_ones_are_rounded_in_turn() -> None:
    codes = torch.randint(-128, 128, (6, 3, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    upper, lower = half_of_weights(codes, upper=True), half_of_weights(codes, upper=False)
    assert torch.equal(upper + lower, codes)
    apart = (upper - lower).flatten(1)
    assert set(apart.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert bool((apart.sum(1).abs() <= 1).all())


def test_every_rule_of_a_method_has_its_operations_counted() -> None:
    assert set(OPERATIONS) == set(CORRECTIONS)
    assert set(COPIES) == set(METHODS) == {"bound", *(method for method, _ in CORRECTIONS)}


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Protection("split", "median", (0,)), "min or mean or sum"),
        (lambda: Protection("triple", "min", (0,)), "split, split_weights"),  # type: ignore[arg-type]
        (lambda: Protection("tmr", "majority", ()), "ascending"),
        (lambda: Protection("tmr", "majority", (3, 1)), "ascending"),
        (lambda: Protection("bound", "zero", (3,)), "for bound none"),
    ],
)
def test_an_impossible_protection_is_refused(make: Callable[[], Protection], words: str) -> None:
    with pytest.raises(HardeningError, match=words):
        make()


@pytest.mark.parametrize("method", METHODS)
def test_a_protection_is_read_as_it_was_written(method: Method) -> None:
    for rule in rules_of(method):
        protection = Protection(method, rule, () if method == "bound" else (0, 2, 5))
        assert Protection.from_dict(protection.to_dict()) == protection
