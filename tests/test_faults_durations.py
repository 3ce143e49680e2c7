"""Transient, intermittent and permanent faults: when a part that fails does so."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from faulty_net import DRAWN_FAULTS, IMAGES, Net, Probe, batches_of, some_images, trained_net
from scipy import stats
from slow_faults import SURELY, plan, site
from torch import Tensor

from ftnas.errors import FaultError
from ftnas.faults import BitFlip, Chip, Fault, draw_plan, inject, sample_site, sites, with_rate
from ftnas.faults.events import CODES

# Each model whose duration can be chosen, once.
CHOOSABLE = {fault.name: fault for fault in reversed(DRAWN_FAULTS) if "duration" in {f.name for f in fields(fault)}}
FEATURES = [fault for fault in CHOOSABLE.values() if fault.target == "features"]
WEIGHTS = [fault for fault in CHOOSABLE.values() if fault.target == "weights"]
MAP = (5, 6, 7)
VALUES = 210


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


def lasting(fault: Fault, duration: str, activity: float = 0.5, rate: float = 0.1) -> Fault:
    return with_rate(replace(fault, duration=duration, activity=activity), rate)  # type: ignore[call-arg]


def by_image(fault: Fault, images: int) -> list[set[int]]:
    """Return the events of each image, element and what happens to it as one number."""
    events = plan(fault, site(MAP), images=range(images)).events
    image, element = np.divmod(events.element, VALUES)
    return [set((element * CODES + events.what)[image == number].tolist()) for number in range(images)]


@pytest.mark.parametrize("fault", FEATURES, ids=str)
def test_a_permanent_fault_is_at_the_same_place_in_every_image(fault: Fault) -> None:
    per_image = by_image(lasting(fault, "permanent"), 130)
    assert len(per_image[0]) > 0
    assert all(events == per_image[0] for events in per_image)


@pytest.mark.parametrize("fault", FEATURES, ids=str)
def test_transient_faults_are_other_ones_in_every_image(fault: Fault) -> None:
    per_image = by_image(lasting(fault, "transient"), 130)
    assert len({frozenset(events) for events in per_image}) == 130


@pytest.mark.parametrize("fault", FEATURES, ids=str)
def test_an_intermittent_fault_is_a_permanent_one_that_acts_now_and_then(fault: Fault) -> None:
    permanent = by_image(lasting(fault, "permanent"), 1)[0]
    per_image = by_image(lasting(fault, "intermittent"), 200)
    assert all(events <= permanent for events in per_image)
    assert set().union(*per_image) == permanent
    assert len({frozenset(events) for events in per_image}) > 100


@pytest.mark.parametrize("fault", FEATURES, ids=str)
@pytest.mark.parametrize("activity", [0.1, 0.5, 0.9])
def test_an_intermittent_fault_acts_in_its_share_of_images(fault: Fault, activity: float) -> None:
    where = site(MAP)
    once, many = (
        plan(lasting(fault, duration, activity), where, images=range(images)).events.element
        for duration, images in (("permanent", 1), ("intermittent", 200))
    )
    acting = len(np.unique(many))
    assert stats.binomtest(acting, 200 * len(np.unique(once)), activity).pvalue > SURELY


def test_two_intermittent_faults_act_independently_of_each_other_and_of_the_last_image() -> None:
    fault = lasting(BitFlip(0.1, "features"), "intermittent", rate=1.0)
    events = plan(fault, site(MAP), images=range(400)).events
    acts = np.zeros(400 * VALUES)
    acts[events.element] = 1
    acts = acts.reshape(400, VALUES)
    for one, other in ((acts[1:], acts[:-1]), (acts[:, 1:], acts[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)


@pytest.mark.parametrize("fault", FEATURES, ids=str)
@pytest.mark.parametrize(("activity", "meant"), [(0.0, "never"), (1.0, "permanent")])
def test_at_the_ends_of_activity_a_fault_never_or_always_acts(fault: Fault, activity: float, meant: str) -> None:
    per_image = by_image(lasting(fault, "intermittent", activity), 20)
    assert per_image == ([set()] * 20 if meant == "never" else by_image(lasting(fault, "permanent"), 20))


@pytest.mark.parametrize("fault", FEATURES, ids=str)
@pytest.mark.parametrize("duration", ["transient", "intermittent", "permanent"])
def test_faults_of_every_duration_are_nested_in_the_rate(fault: Fault, duration: str) -> None:
    few, many = (by_image(lasting(fault, duration, rate=rate), 70) for rate in (0.1, 0.3))
    assert all(low <= high for low, high in zip(few, many, strict=True))
    assert sum(map(len, few)) < sum(map(len, many))


def test_intermittent_faults_are_nested_in_the_activity() -> None:
    rarely, often = (by_image(lasting(FEATURES[0], "intermittent", share), 70) for share in (0.2, 0.7))
    assert all(low <= high for low, high in zip(rarely, often, strict=True))


@pytest.mark.parametrize("fault", FEATURES, ids=str)
@pytest.mark.parametrize("duration", ["intermittent", "permanent"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_lasting_faults_are_the_same_for_any_batch_split(fault: Fault, duration: str, size: int) -> None:
    probe, lasts = Probe((4, 4, 4)), lasting(fault, duration)
    assert torch.equal(probe.faulty(lasts, batches_of(size)), probe.faulty(lasts, [range(IMAGES)]))


# Weights


def faulty_weight(net: Net, fault: Fault, first_image: int, images: Tensor | None = None) -> Tensor:
    """Return the faulty weight that a pass of ``images`` computes with."""
    number = net.stem.weight_number(net.stem.weight)
    with inject(net, fault, first_image=first_image) as injection, torch.no_grad():
        if images is not None:
            net(images)
        return injection.weight(net.stem, number.decode(number.encode(net.stem.weight.detach())), number)


@pytest.mark.parametrize("fault", WEIGHTS, ids=str)
def test_transient_faults_of_weights_differ_by_batch_and_not_by_what_is_in_it(fault: Fault, net: Net) -> None:
    brief = lasting(fault, "transient")
    first, again, second = (faulty_weight(net, brief, image) for image in (0, 0, 64))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(first, faulty_weight(net, brief, 0, some_images()[:9]))


@pytest.mark.parametrize("fault", WEIGHTS, ids=str)
def test_transient_faults_of_weights_are_drawn_at_the_whole_rate_for_every_batch(fault: Fault) -> None:
    where, chip = site(2000, kind="weight"), Chip("test", 0, (lasting(fault, "transient"),))
    drawn = [sample_site(chip, where, fault=0, images=range(first, first + 1)).events for first in range(0, 640, 64)]
    hit = [set((events.element * CODES + events.what).tolist()) for events in drawn]
    expected = 2000 * 0.1 * (1 if fault.name == "weights.random_value" else 8)
    assert all(abs(len(one) - expected) < 5 * np.sqrt(expected) for one in hit)
    assert all(len(one & hit[0]) < 0.2 * len(one) for one in hit[1:])


@pytest.mark.parametrize("fault", WEIGHTS, ids=str)
def test_an_intermittent_fault_of_a_weight_acts_in_its_share_of_batches(fault: Fault) -> None:
    where = site(2000, kind="weight")
    chip = Chip("test", 0, (lasting(fault, "permanent", 0.3), lasting(fault, "intermittent", 0.3)))
    permanent = set(sample_site(Chip("test", 0, chip.faults[:1]), where, fault=0).events.element.tolist())
    alone = Chip("test", 0, chip.faults[1:])
    acting = [
        set(sample_site(alone, where, fault=0, images=range(i, i + 1)).events.element.tolist()) for i in range(40)
    ]
    assert all(found <= permanent for found in acting)
    assert stats.binomtest(sum(map(len, acting)), 40 * len(permanent), 0.3).pvalue > SURELY


def test_the_passes_of_one_injection_meet_the_transient_weights_of_their_batch(net: Net) -> None:
    brief = lasting(WEIGHTS[0], "transient")
    number = net.stem.weight_number(net.stem.weight)
    weight = number.decode(number.encode(net.stem.weight.detach()))
    expected = {first: faulty_weight(net, brief, first) for first in (0, 64)}
    with inject(net, brief) as injection:
        for first in (0, 64, 0):
            injection.first_image = first
            assert torch.equal(injection.weight(net.stem, weight, number), expected[first])


def test_faults_of_weights_that_last_are_counted_once_and_others_for_each_batch(net: Net) -> None:
    images = some_images()
    faults = [BitFlip(0.01), BitFlip(0.01, duration="transient")]
    with inject(net, faults) as injection:
        net(images[:64])
        one = injection.counts["stem.weight"]
        net(images[:64])
        assert injection.counts["stem.weight"] == one
        injection.first_image = 64
        net(images[64:128])
    (where,), chip = sites(net, "stem.weight"), Chip("ftnas", 0, tuple(faults))
    lasts = len(sample_site(chip, where, fault=0))
    brief = [len(sample_site(chip, where, fault=1, images=range(first, first + 1))) for first in (0, 64)]
    assert one.planned == lasts + brief[0]
    assert injection.counts["stem.weight"].planned == lasts + sum(brief)


def test_counts_forget_the_faults_of_no_batch_where_none_fails(net: Net) -> None:
    rare = BitFlip(2e-4, duration="transient")
    with inject(net, rare) as injection:
        for first in range(0, 6400, 64):
            injection.first_image = first
            net(some_images()[:1])
            count = injection.counts["stem.weight"]
            assert count.effective + count.masked <= count.applied == count.planned
    assert 20 < count.planned < 60


@pytest.mark.parametrize("fault", WEIGHTS, ids=str)
@pytest.mark.parametrize("duration", ["transient", "intermittent"])
def test_a_plan_refuses_faults_of_weights_that_do_not_last(fault: Fault, duration: str, net: Net) -> None:
    with pytest.raises(FaultError, match="a plan holds faults of weights that last; duration must be permanent"):
        draw_plan(net, lasting(fault, duration))


def test_faults_of_weights_that_do_not_last_need_a_batch_to_be_drawn_for() -> None:
    with pytest.raises(FaultError, match="differ from forward pass to forward pass"):
        plan(BitFlip(0.1, duration="transient"), site(10, kind="weight"), images=None)
