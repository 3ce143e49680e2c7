"""Writing faults into tensors: any memory layout, any scale, and nothing but the values that fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faulty_net import DRAWN_FAULTS, EVERY_FAULT, FEATURE_FAULTS, VARIANTS, WEIGHT_FAULTS
from hypothesis import given
from hypothesis import strategies as st
from slow_faults import plan, site
from torch import Tensor

from ftnas.faults import BitBias, Fault
from ftnas.faults.applying import apply_
from ftnas.faults.codes import effect_of
from ftnas.quantization import FixedPoint, Number

SHAPE = (64, 6, 5, 7)
LAYOUTS = {
    "channels_last": lambda plain: plain.clone(memory_format=torch.channels_last),
    "transposed": lambda plain: plain.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
    "sliced": lambda plain: torch.nn.functional.pad(plain, (1, 1, 2, 0))[:, :, 2:, 1:-1],
    "bfloat16": lambda plain: plain.bfloat16(),
}


def grid(generator: torch.Generator, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randint(-128, 128, shape, generator=generator) * 0.5


def hit(values: Tensor, fault: Fault, number: Number) -> int:
    """Put the faults of a weight or of 64 images into ``values``; return how many changed."""
    weight = fault.target == "weights"
    where = site(tuple(values.shape) if weight else tuple(values.shape[1:]), kind="weight" if weight else "output")
    clean = values.clone()
    effect = effect_of(fault, plan(fault, where).events, number, clean)
    return int(apply_(values, fault, effect, number=number, clean=clean))


@pytest.mark.parametrize("fault", EVERY_FAULT + VARIANTS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_faults_do_not_depend_on_the_memory_layout(fault: Fault, layout: str, generator: torch.Generator) -> None:
    plain = grid(generator)
    before, other = plain.clone(), LAYOUTS[layout](plain)
    for values in (plain, other):
        hit(values, fault, FixedPoint(8, 0.5))
    # An analogue value is rounded to the type that it is kept in.
    assert torch.equal(plain.to(other.dtype), other)
    assert not torch.equal(plain, before)


@given(data=st.data(), fault=st.sampled_from(FEATURE_FAULTS))
def test_faults_do_not_depend_on_the_order_of_dimensions_in_memory(data: st.DataObject, fault: Fault) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    order = data.draw(st.permutations(range(len(sizes) + 1)))
    plain = grid(torch.Generator().manual_seed(0), (64, *sizes))
    other = plain.permute(order).contiguous().permute(np.argsort(order).tolist())
    for values in (plain, other):
        hit(values, fault, FixedPoint(8, 0.5))
    assert torch.equal(plain, other)


@pytest.mark.parametrize("fault", [fault for fault in WEIGHT_FAULTS if fault in DRAWN_FAULTS], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_with_a_scale_per_channel_codes_fail_as_with_one_scale(fault: Fault, layout: str) -> None:
    codes = torch.randint(-128, 128, SHAPE, generator=torch.Generator().manual_seed(0))
    one, per_channel = FixedPoint(8, 1.0), FixedPoint(8, tuple(0.01 * (index + 1) for index in range(SHAPE[0])))
    expected, values = one.decode(codes), LAYOUTS.get(layout, torch.clone)(per_channel.decode(codes))
    changed = [hit(expected, fault, one), hit(values, fault, per_channel)]
    assert torch.equal(per_channel.encode(values), one.encode(expected))
    assert changed[0] == changed[1] > 0


def test_only_hit_values_are_touched(generator: torch.Generator) -> None:
    values = torch.rand(64, 10, generator=generator)
    before, planned = values.clone(), plan(BitBias(0.1), site(10))
    hit(values, BitBias(0.1), FixedPoint(8, 1 / 128))
    untouched = np.setdiff1d(np.arange(640), planned.events.element)
    assert torch.equal(values.view(-1)[untouched], before.view(-1)[untouched])


@pytest.mark.parametrize("fault", EVERY_FAULT + VARIANTS, ids=str)
def test_the_number_of_changed_values_is_exact(fault: Fault, generator: torch.Generator) -> None:
    values = grid(generator)
    before = values.clone()
    assert hit(values, fault, FixedPoint(8, 0.5)) == int((values != before).sum()) > 0
