"""Injection: the same chip however the images come, in any layout, in company or alone."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Sequence

import pytest
import torch
from fault_strategies import models
from faulty_net import (
    EVERY_FAULT,
    FEATURE_FAULTS,
    IMAGES,
    WEIGHT_FAULTS,
    Net,
    Probe,
    batches_of,
    some_images,
    trained_net,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults import BitBias, BitFlip, Fault, MacBitBias, StuckCell, inject, parse_fault, sites
from ftnas.quantization import QuantizedConv2d


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


@pytest.mark.parametrize("fault", FEATURE_FAULTS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 64, 100])
def test_a_chip_is_the_same_for_any_batch_split(fault: Fault, size: int) -> None:
    probe = Probe()
    whole = probe.faulty(fault, [range(IMAGES)])
    assert not torch.equal(whole, probe.features)
    assert torch.equal(probe.faulty(fault, batches_of(size)), whole)


@settings(max_examples=25)
@given(cuts=st.sets(st.integers(1, IMAGES - 1), max_size=5), order=st.randoms())
def test_a_chip_is_the_same_for_any_cuts_in_any_order(cuts: set[int], order: random.Random) -> None:
    probe, ends = Probe(), [0, *sorted(cuts), IMAGES]
    batches = [range(first, last) for first, last in itertools.pairwise(ends)]
    order.shuffle(batches)
    assert torch.equal(probe.faulty(BitBias(0.01), batches), probe.faulty(BitBias(0.01), [range(IMAGES)]))


ANY_FAULT = models(st.floats(0, 1), st.floats(0, 2), bits=8)


@settings(max_examples=60)
@given(fault=ANY_FAULT, size=st.sampled_from([1, 30, 64, 149]))
def test_a_chip_of_any_model_is_the_same_for_any_batch_split(fault: Fault, size: int) -> None:
    assume(fault.target == "features" and getattr(fault, "bias", "") != "published")
    probe = Probe((2, 3, 4))
    assert torch.equal(probe.faulty(fault, batches_of(size)), probe.faulty(fault, [range(IMAGES)]))


@settings(max_examples=60)
@given(fault=ANY_FAULT)
def test_a_fault_of_any_model_stays_on_the_grid_unless_it_is_analogue(fault: Fault) -> None:
    probe, images = Probe((2, 3, 4)), [range(IMAGES)]
    assume(fault.target == "features")
    codes = probe.faulty(fault, images) / probe.number.scale
    assert torch.equal(codes, codes.round().clamp(-128, 127))


def test_one_injection_may_be_told_where_each_batch_begins() -> None:
    probe = Probe()
    result = probe.features.clone()
    with inject(probe.model, BitBias(0.05), chip=7) as injection:
        for batch in batches_of(40):
            injection.first_image = batch.start
            injection.output(probe.model[0], result[batch.start : batch.stop], probe.number)
    assert torch.equal(result, probe.faulty(BitBias(0.05), [range(IMAGES)]))


@pytest.mark.parametrize("fault", FEATURE_FAULTS, ids=str)
def test_a_chip_is_the_same_in_any_memory_format(fault: Fault) -> None:
    probe = Probe()
    whole = [range(IMAGES)]
    assert torch.equal(probe.faulty(fault, whole, channels_last=True), probe.faulty(fault, whole))


@pytest.mark.parametrize("fault", WEIGHT_FAULTS, ids=str)
def test_a_faulty_weight_is_the_same_in_any_memory_format(fault: Fault, net: Net) -> None:
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    results = []
    for model in (net, twin):
        number = model.stem.weight_number(model.stem.weight)
        on_grid = number.decode(number.encode(model.stem.weight))
        with inject(model, fault) as injection:
            results.append(injection.weight(model.stem, on_grid, number))
    assert torch.equal(*results)
    assert not torch.equal(results[0], on_grid)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_the_same_chip_fails_alike_again_and_another_chip_or_study_fails_otherwise(
    fault: Fault, net: Net, images: Tensor
) -> None:
    def run(chip: int, study: str) -> Tensor:
        with inject(net, fault, chip=chip, study=study):
            return net(images)

    assert torch.equal(run(1, "a"), run(1, "a"))
    assert not torch.equal(run(1, "a"), run(2, "a"))
    assert not torch.equal(run(1, "a"), run(1, "b"))


def test_all_batches_meet_the_same_faulty_weights(net: Net, images: Tensor) -> None:
    with inject(net, StuckCell(0.1)):
        one, two = net(images), net(images)
    assert torch.equal(one, two)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_faults_at_rate_zero_change_nothing(fault: Fault, net: Net, images: Tensor) -> None:
    with inject(net, parse_fault(f"{fault.name}:0")) as injection:
        faulty = net(images)
    assert injection.counts == {}
    assert torch.equal(faulty, net(images))


def test_convolution_faults_leave_classifier_and_sums_alone(net: Net, images: Tensor) -> None:
    with inject(net, [BitBias(0.1), StuckCell(0.1)]) as injection:
        net(images)
    assert set(injection.counts) == {"stem.weight", "stem.output", "body.weight", "body.output"}


def test_faults_of_scope_all_reach_every_site(net: Net, images: Tensor) -> None:
    with inject(net, [BitFlip(0.1, "weights"), BitFlip(0.1, "features")]) as injection:
        net(images)
    assert set(injection.counts) == {site.name for site in sites(net)}


def test_another_model_in_the_block_is_not_hit(net: Net, images: Tensor) -> None:
    other = copy.deepcopy(net)
    clean = other(images)
    with inject(net, BitFlip(0.1)):
        assert torch.equal(other(images), clean)


def test_a_layer_that_was_moved_takes_the_faults_of_its_new_place(images: Tensor) -> None:
    model = nn.Sequential(QuantizedConv2d(3, 3, 1), QuantizedConv2d(3, 3, 1))
    model(images)
    model.eval()
    with inject(model, BitFlip(0.2)):
        model(images)
    moved = nn.Sequential(model[1], model[0])
    model[0], model[1] = moved[0], moved[1]
    with inject(model, BitFlip(0.2)):
        live = model(images)
    with inject(moved, BitFlip(0.2)):
        assert torch.equal(live, moved(images))


def test_faults_of_weights_and_features_act_together(net: Net, images: Tensor) -> None:
    together = ["weights.stuck_cell:0.05", "features.mac_bit_bias:1e-3"]
    with inject(net, together) as injection:
        both = net(images)
    with inject(net, together[0]):
        weights_only = net(images)
    assert not torch.equal(both, weights_only)
    assert injection.counts["stem.weight"].planned > 0
    assert injection.counts["stem.output"].planned > 0


@pytest.mark.parametrize("faults", [(BitBias(0.3), BitFlip(0.2, "features")), (BitFlip(0.2, "features"), BitBias(0.3))])
def test_feature_faults_act_in_the_order_of_the_list(faults: Sequence[Fault]) -> None:
    probe = Probe()
    expected = probe.features.clone()
    for index, fault in enumerate(faults):
        alone = [parse_fault(f"{other.name}:0") for other in faults]
        alone[index] = fault
        with inject(probe.model, alone, chip=7) as injection:
            injection.output(probe.model[0], expected, probe.number)
    result = probe.features.clone()
    with inject(probe.model, faults, chip=7) as injection:
        injection.output(probe.model[0], result, probe.number)
    assert torch.equal(result, expected)


def test_two_models_of_one_kind_fail_apart() -> None:
    probe = Probe()
    result = probe.features.clone()
    with inject(probe.model, [BitFlip(0.05, "features"), BitFlip(0.05, "features")]) as injection:
        injection.output(probe.model[0], result, probe.number)
    assert not torch.equal(result, probe.features)


def test_counts_say_how_many_codes_changed() -> None:
    probe = Probe()
    result = probe.features.clone()
    with inject(probe.model, BitBias(0.05)) as injection:
        injection.output(probe.model[0], result, probe.number)
    count = injection.counts["0.output"]
    assert count.effective == int((result != probe.features).sum())
    assert count.planned == count.applied >= count.effective > 0


def test_a_second_injection_inside_the_first_is_refused(net: Net) -> None:
    with inject(net, []), pytest.raises(FaultError, match="give all fault models to one inject"), inject(net, []):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first_image": -1}, "first_image must be 0 or more, got -1"),
        ({"gradient": "none"}, "gradient must be one of masked, straight_through, got 'none'"),
        ({"faults": 0.1}, "a fault model or its text is needed"),
        ({"faults": "features.nothing:1"}, "unknown fault 'features.nothing'"),
        ({"model": nn.Linear(1, 1)}, "Linear has no quantised layer"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], said: str, net: Net) -> None:
    given_arguments = {"model": net, "faults": MacBitBias(0.1), **arguments}
    with pytest.raises(FaultError, match=said), inject(**given_arguments):  # type: ignore[arg-type]
        pass
