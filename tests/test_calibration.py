"""Calibration: the statistics of these images, and nothing else of the net."""

from __future__ import annotations

import pytest
import torch
from small_nets import SmallNet, same_bits, small_net
from small_trainings import hundred_digits, statistics
from torch import Tensor

from ftnas.quantization import MOMENTUM, CleanBatchNorm2d, QuantizedLayer
from ftnas.training import recalibrate


@pytest.fixture(scope="module")
def images() -> Tensor:
    return hundred_digits()[0]


def calibrated(net: SmallNet, images: Tensor, batch_size: int) -> SmallNet:
    recalibrate(net, images, batch_size=batch_size)
    return net


def test_calibration_gives_the_mean_of_the_batches(images: Tensor) -> None:
    # Only the first layer sees the same in any company: what reaches the next hangs on the ranges so far.
    parts = [statistics(calibrated(small_net(), batch, len(batch))) for batch in images[:96].split(32)]
    whole = statistics(calibrated(small_net(), images[:96], 32))
    for name in (name for name in whole if name.startswith("first.")):
        assert torch.allclose(whole[name], torch.stack([part[name] for part in parts]).mean(0), rtol=1e-5), name


def test_calibration_on_one_batch_gives_the_statistics_of_that_batch(images: Tensor) -> None:
    net, seen = small_net(), []
    net.first.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))  # type: ignore[union-attr]
    recalibrate(net, images)
    assert isinstance(net.first.norm, CleanBatchNorm2d)
    assert net.first.norm.running_mean is not None and net.first.norm.running_var is not None
    assert torch.allclose(net.first.norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(net.first.norm.running_var, seen[0].var((0, 2, 3)), rtol=1e-4)


def test_calibration_forgets_what_was_there(images: Tensor) -> None:
    fresh, used = small_net(), small_net()
    used(100 * images)
    assert same_bits(statistics(calibrated(used, images, 50)), statistics(calibrated(fresh, images, 50)))


@pytest.mark.parametrize("training", [True, False])
def test_calibration_gives_mode_and_momentum_back(training: bool, images: Tensor) -> None:
    net = calibrated(small_net().train(training), images, 40)
    layers = [layer for layer in net.modules() if isinstance(layer, (QuantizedLayer, CleanBatchNorm2d))]
    assert {layer.momentum for layer in layers} == {MOMENTUM}
    assert {module.training for module in net.modules()} == {training}


def test_calibration_changes_no_weight(images: Tensor) -> None:
    net = calibrated(small_net(), images, 40)
    before = dict(small_net().named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_calibration_takes_the_forward_it_is_given(images: Tensor) -> None:
    net = small_net()
    before = statistics(net)
    recalibrate(net, images, forward=lambda x: net.first(x))
    changed = {name for name, value in statistics(net).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("first.")}
