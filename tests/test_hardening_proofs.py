"""What protection is worth, measured on trained nets (proofs 3, 5 and 7): each test trains and attacks many chips."""

from __future__ import annotations

from functools import cache
from statistics import fmean

import pytest
import torch
from hardened_nets import hardened, logits
from small_nets import SmallNet, digits
from torch import Tensor, nn

from ftnas.faults import inject
from ftnas.hardening.methods import HardeningOptions
from ftnas.hardening.passes import harden, under_hardened_names
from ftnas.hardening.vulnerability import vulnerability_of
from ftnas.networks.correction import Method, Rule
from ftnas.networks.hardened import protections_of
from ftnas.quantization import Quantization, Range
from ftnas.runtime import seeded
from ftnas.training import TrainingSettings, train

pytestmark = pytest.mark.slow

FLIPS = "features.bit_flip:0.01"
SEEDS, CHIPS = range(3), 20
LAYERS = ("first", "second", "classifier")


@cache
def net_of(seed: int, epochs: int = 2, width: int = 8, feature_range: str = "power_of_two") -> nn.Module:
    """Return a narrow net after a short training: on a confident one no flip changes an answer."""
    data = digits()
    with seeded("hardening", seed):
        net = SmallNet(width, Quantization(feature_range=Range.parse(feature_range)))
    settings = TrainingSettings(epochs=epochs)
    train(net, data.train_images, data.train_labels, settings=settings, faults=[], key=f"hardening {seed}")
    return net.eval()


def accuracies(net: nn.Module, layer: str) -> list[float]:
    """Return the accuracy of each chip on which the layer at ``layer``, and its copies, fail."""
    data = digits()
    found = []
    for chip in range(CHIPS):
        with torch.no_grad(), inject(net.get_submodule(layer), FLIPS, chip=chip, study="proof"):
            right: Tensor = net(data.test_images).argmax(1) == data.test_labels
        found.append(float(right.float().mean()))
    return found


def protected(seed: int, method: Method, rule: Rule) -> nn.Module:
    return hardened(net_of(seed), digits().train_images[:64], method, rule)


def plain(seed: int) -> nn.Module:
    return under_hardened_names(net_of(seed), LAYERS)


def test_splitting_recovers_most_of_what_tmr_does_at_half_the_work_and_without_correction_it_harms() -> None:
    """Proof 5: mean over layers, 3 seeds and 20 chips that all methods share."""
    shares, harms = [], []
    for layer in LAYERS:
        none, split, tmr, plain_sum = (
            fmean(fmean(accuracies(net, layer)) for net in nets)
            for nets in (
                [plain(seed) for seed in SEEDS],
                [protected(seed, "split", "min") for seed in SEEDS],
                [protected(seed, "tmr", "majority") for seed in SEEDS],
                [protected(seed, "split", "sum") for seed in SEEDS],
            )
        )
        shares.append((split - none) / (tmr - none))
        harms.append(none - plain_sum)
    print(f"recovered share of TMR's gain: {shares}, points lost without correction: {harms}")
    assert fmean(shares) >= 0.6
    assert min(harms) > 0


def test_half_of_the_channels_chosen_by_vulnerability_is_worth_more_than_chosen_at_random() -> None:
    """Proof 7: mean over layers, seeds and paired chips."""
    gains = []
    data = digits()
    for seed in SEEDS:
        known = vulnerability_of(net_of(seed), data.train_images[:600])
        for layer in LAYERS:
            draws = [_half(seed, layer, "random", draw, known) for draw in range(3)]
            random = fmean(fmean(accuracies(net, layer)) for net in draws)
            chosen = fmean(accuracies(_half(seed, layer, "nvf", 0, known), layer))
            gains.append(chosen - random)
    print(f"gain of a choice by vulnerability: {gains}")
    assert fmean(gains) >= 0


def _half(seed: int, layer: str, select: str, draw: int, known: object) -> nn.Module:
    options = HardeningOptions(ratios=(f"{layer}=0.5",), select=select, seed=draw)  # type: ignore[arg-type]
    found = harden(net_of(seed), digits().train_images[:64], options, vulnerability=known)  # type: ignore[arg-type]
    assert list(protections_of(found.model)) == [layer]
    return found.model


def test_halves_by_weights_agree_with_the_net() -> None:
    """Proof 3, its second half: 99.5 % of the answers, where a code's step is small against the margins."""
    data = digits()
    agreed = []
    for seed in range(2):
        net = net_of(seed, epochs=8, width=16, feature_range="max")
        split = hardened(net, data.train_images[:512], "split_weights")
        same = logits(split, data.test_images).argmax(1) == logits(net, data.test_images).argmax(1)
        agreed.append(float(same.float().mean()))
    print(f"agreement: {agreed}")
    assert fmean(agreed) >= 0.995
