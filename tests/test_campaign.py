"""Campaigns: accuracies chip by chip, the same for any batch size, and an interval over chips."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small_nets import SmallNet, digits, same_bits, state, trained
from torch import Tensor, nn

from ftnas.campaign import Measurement, accuracy, chip_accuracies
from ftnas.faults import FAULTS, parse_fault

ACCURACIES = st.lists(st.integers(0, 300).map(lambda hits: hits / 300), min_size=2, max_size=30)


# Intervals


@given(ACCURACIES)
def test_the_interval_is_students_t_over_chips(chips: list[float]) -> None:
    measured = Measurement.over(chips)
    error = stats.sem(chips)
    if error == 0:
        assert (measured.low, measured.high) == (measured.mean, measured.mean)
        return
    low, high = stats.t.interval(0.95, len(chips) - 1, loc=np.mean(chips), scale=error)
    assert (measured.low, measured.high) == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=1e-12)


@given(ACCURACIES)
def test_an_interval_holds_the_mean_and_stays_an_accuracy(chips: list[float]) -> None:
    measured = Measurement.over(chips)
    assert measured.mean == pytest.approx(sum(chips) / len(chips))
    assert 0 <= measured.low <= measured.mean <= measured.high <= 1


def test_more_confidence_is_a_wider_interval() -> None:
    usual, sure = (Measurement.over([0.5, 0.6, 0.7], confidence) for confidence in (0.95, 0.99))
    assert sure.low < usual.low < usual.high < sure.high


def test_one_chip_alone_says_nothing_of_others() -> None:
    assert Measurement.over([0.75]) == Measurement(0.75, 0.0, 1.0, (0.75,))


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    draws = np.random.default_rng(0).normal(0.5, 0.05, (2000, 8))
    intervals = [Measurement.over(row.tolist()) for row in draws]
    assert np.mean([m.low <= 0.5 <= m.high for m in intervals]) == pytest.approx(0.95, abs=0.015)


def test_a_measurement_is_plain_data_with_every_chip_in_order() -> None:
    content = json.loads(json.dumps(Measurement.over([0.7, 0.5, 0.6]).to_dict()))
    assert content.keys() == {"mean", "low", "high", "chips"}
    assert content["chips"] == [0.7, 0.5, 0.6]


# Accuracies


class Says(nn.Module):
    """Answers what the first pixel of each image says."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(10)[x[:, 0, 0, 0].long()]


@pytest.mark.parametrize("batch_size", [1, 3, 512])
def test_accuracy_is_the_share_of_right_answers(batch_size: int) -> None:
    images = torch.arange(8.0).reshape(8, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 3, 4, 9, 9, 9])
    assert accuracy(Says(), images, labels, batch_size=batch_size) == 5 / 8


def test_accuracy_takes_the_forward_it_is_given() -> None:
    images = torch.arange(4.0).reshape(4, 1, 1, 1)
    assert accuracy(Says(), images, torch.tensor([1, 2, 3, 4]), forward=lambda x: Says()(x + 1)) == 1.0


@pytest.fixture(scope="module")
def net() -> SmallNet:
    return trained()[0]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return digits().test_images[:300]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return digits().test_labels[:300]


def chips_of(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    fault: str = "features.mac_bit_bias:1e-3",
    *,
    chips: tuple[int, ...] = (0, 1, 2),
    study: str = "test",
    batch_size: int = 512,
) -> list[float]:
    faults = [parse_fault(fault)]
    return chip_accuracies(net, images, labels, faults=faults, chips=chips, study=study, batch_size=batch_size)


def strengths(fault: str) -> tuple[float, float, float]:
    """Return no, some and many faults; the strength of a variation is a sigma."""
    if parse_fault(f"{fault}:0").strength == "sigma":
        return (0.0, 0.5, 3.0)
    return (0.0, 0.05, 0.5) if fault.startswith("weights") else (0.0, 1e-3, 2e-2)


@pytest.mark.parametrize("fault", FAULTS)
def test_chips_are_the_same_for_any_batch_size(fault: str, net: SmallNet, images: Tensor, labels: Tensor) -> None:
    strength = max(0.03, strengths(fault)[1])
    small, large = (chips_of(net, images, labels, f"{fault}:{strength}", batch_size=size) for size in (7, 512))
    assert small == large
    assert len(set(small)) > 1


@pytest.mark.parametrize("fault", FAULTS)
def test_at_rate_0_a_chip_is_as_good_as_clean(fault: str, net: SmallNet, images: Tensor, labels: Tensor) -> None:
    assert set(chips_of(net, images, labels, f"{fault}:0")) == {accuracy(net, images, labels)}


@pytest.mark.parametrize("fault", FAULTS)
def test_more_faults_cost_accuracy(fault: str, net: SmallNet, images: Tensor, labels: Tensor) -> None:
    means = [Measurement.over(chips_of(net, images, labels, f"{fault}:{rate}")).mean for rate in strengths(fault)]
    assert means[0] > means[1] > means[2]


def test_a_chip_does_not_depend_on_the_others_measured(net: SmallNet, images: Tensor, labels: Tensor) -> None:
    together = chips_of(net, images, labels, chips=(4, 7, 9))
    assert together == [chips_of(net, images, labels, chips=(chip,))[0] for chip in (4, 7, 9)]


def test_another_study_has_other_chips(net: SmallNet, images: Tensor, labels: Tensor) -> None:
    assert chips_of(net, images, labels) != chips_of(net, images, labels, study="other")


@pytest.mark.parametrize("training", [True, False])
def test_a_campaign_leaves_weights_and_statistics_alone(training: bool, images: Tensor, labels: Tensor) -> None:
    net = SmallNet(4)
    net(images)
    net.train(training)
    before = state(net)
    chips_of(net, images, labels, "weights.stuck_cell:0.1")
    accuracy(net, images, labels)
    assert same_bits(state(net), before)


def test_a_campaign_measures_in_evaluation_mode(images: Tensor, labels: Tensor) -> None:
    net = SmallNet(4).train()
    net(images)
    in_training = chips_of(net.train(), images, labels)
    assert in_training == chips_of(net.eval(), images, labels)


def test_chip_accuracies_take_the_forward_they_are_given(net: SmallNet, images: Tensor, labels: Tensor) -> None:
    wrong = chip_accuracies(
        net, images, labels, faults=[], chips=[0], study="test", forward=lambda x: -net(x).softmax(1)
    )
    assert wrong[0] < 0.1
