"""Several models on one chip: each acts in its turn on what the one before left, and every fault is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from faulty_net import Net, Probe, some_images, trained_net
from slow_faults import rows_of, slow
from torch import Tensor, nn

from ftnas.faults import (
    Chip,
    Count,
    Fault,
    Flip,
    Site,
    draw_plan,
    explicit_plan,
    inject,
    output_shapes,
    parse_faults,
    sites,
)
from ftnas.quantization import FixedPoint

FIVE_OF_WEIGHTS = parse_faults(
    [
        "weights.stuck_cell:0.1:scope=all",
        "weights.bit_flip:0.05",
        "weights.stuck_bit:0.05:stuck_at_one=0.3",
        "weights.directed_flip:0.05:to_zero=0.5",
        "weights.random_value:0.05",
    ]
)
FIVE_OF_FEATURES = parse_faults(
    [
        "features.mac_bit_bias:0.01",
        "features.bit_flip:0.02:adjacent=2",
        "features.pattern:0.05:shape=row:value=in_range",
        "features.stuck_bit:0.02:duration=permanent",
        "features.random_value:0.02:duration=intermittent",
    ]
)


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


def in_turn(codes: list[int], faults: Sequence[Fault], chip: Chip, where: Site, number: FixedPoint) -> list[int]:
    """Return ``codes`` after each of ``faults``, one value and one bit at a time."""
    largest = max(map(abs, codes))
    for index, fault in enumerate(faults):
        images = range(10) if fault.target == "features" else None
        rows = rows_of(chip.site_plan(where, index, images).events, number.bits)
        codes = slow(codes, fault, rows, number, largest)
    return codes


@pytest.mark.parametrize("faults", [FIVE_OF_WEIGHTS, FIVE_OF_WEIGHTS[::-1]], ids=["forward", "backward"])
def test_five_models_act_on_a_weight_one_after_the_other(faults: tuple[Fault, ...], net: Net) -> None:
    number = net.body.weight_number(net.body.weight)
    codes = number.encode(net.body.weight.detach())
    (where,) = sites(net, "body.weight")
    with inject(net, faults, chip=2, study="five") as injection:
        faulty = number.encode(injection.weight(net.body, number.decode(codes), number))
    expected = in_turn(codes.flatten().tolist(), faults, Chip("five", 2, faults), where, number)
    assert faulty.flatten().tolist() == expected != codes.flatten().tolist()


@pytest.mark.parametrize("faults", [FIVE_OF_FEATURES, FIVE_OF_FEATURES[::-1]], ids=["forward", "backward"])
def test_five_models_act_on_an_output_one_after_the_other(faults: tuple[Fault, ...]) -> None:
    probe = Probe()
    values, number = probe.features[:10].clone(), probe.number
    codes = number.encode(values).flatten().tolist()
    (site,), chip = sites(probe.model, "*.output"), Chip("five", 2, faults)
    with inject(probe.model, faults, chip=2, study="five") as injection:
        injection.output(probe.model[0], values, number)
    expected = in_turn(codes, faults, chip, replace(site, shape=tuple(values.shape[1:])), number)
    assert number.encode(values).flatten().tolist() == expected != codes


def test_each_of_ten_models_adds_to_the_counts_of_its_sites(net: Net, images: Tensor) -> None:
    ten = (*FIVE_OF_WEIGHTS, *FIVE_OF_FEATURES)
    plan = draw_plan(net, ten, images=range(len(images)), shapes=output_shapes(net, images[:1]))
    with inject(net, ten) as injection:
        net(images)
    for name, count in injection.counts.items():
        events = [len(planned) for (site, _), planned in plan.sites.items() if site == name]
        assert count.planned == count.applied == sum(events)
        assert 0 < count.effective <= count.effective + count.masked <= count.planned


def counts(net: nn.Module, flips: Sequence[Flip], images: Tensor, passes: int = 1) -> dict[str, Count]:
    plan = explicit_plan(net, flips, shapes=output_shapes(net, images[:1]), images=len(images))
    with inject(net, plan) as injection:
        for _ in range(passes):
            net(images)
    return injection.counts


def stuck_as_it_is(net: Net, element: int, bit: int) -> Flip:
    """Return the stuck bit that holds what the fault-free weight has there anyway."""
    code = int(net.stem.weight_number(net.stem.weight).encode(net.stem.weight.detach()).flatten()[element])
    return Flip("stem.weight", element, bit, "stuck_at_1" if code >> bit & 1 else "stuck_at_0")


def test_a_fault_that_changes_no_code_is_masked(net: Net, images: Tensor) -> None:
    flips = [stuck_as_it_is(net, element, 3) for element in range(20)]
    assert counts(net, flips, images)["stem.weight"] == Count(planned=20, applied=20, effective=0, masked=20)


def test_two_faults_of_one_value_are_two_planned_and_one_effective(net: Net, images: Tensor) -> None:
    flips = [Flip("stem.weight", 7, 0), Flip("stem.weight", 7, 6), stuck_as_it_is(net, 9, 2)]
    assert counts(net, flips, images)["stem.weight"] == Count(planned=3, applied=3, effective=1, masked=1)


def test_a_fault_at_a_site_that_does_not_run_is_planned_and_not_applied(net: Net, images: Tensor) -> None:
    plan = explicit_plan(net, [Flip("head.weight", 0, 0), Flip("stem.weight", 0, 0)])
    with inject(net, plan) as injection:
        net.stem(images)
    assert injection.counts["head.weight"] == Count(planned=1, applied=0, effective=0, masked=0)
    assert injection.counts["stem.weight"] == Count(planned=1, applied=1, effective=1, masked=0)


def test_an_output_s_faults_count_for_each_pass_and_a_weight_s_once(net: Net, images: Tensor) -> None:
    flips = [Flip("stem.weight", 0, 0), *[Flip("stem.output", 5, 2, image=image) for image in range(10)]]
    found = counts(net, flips, images, passes=3)
    assert found["stem.weight"] == Count(planned=1, applied=1, effective=1, masked=0)
    assert found["stem.output"] == Count(planned=10, applied=30, effective=30, masked=0)


def test_effective_and_masked_values_are_those_that_were_met(net: Net) -> None:
    number = net.body.weight_number(net.body.weight)
    before = number.encode(net.body.weight.detach())
    with inject(net, "weights.stuck_bit:0.05:stuck_at_one=0.5") as injection:
        after = number.encode(injection.weight(net.body, number.decode(before), number))
    met = len(draw_plan(net, "weights.stuck_bit:0.05:stuck_at_one=0.5").sites["body.weight", 0].events.element)
    count, changed = injection.counts["body.weight"], int((before != after).sum())
    assert (count.planned, count.effective) == (met, changed)
    assert 0 < count.masked < count.planned
