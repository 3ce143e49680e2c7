"""Copies that take over the layer's product give what they would compute themselves, and merge what was hit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export_nets import baseline, quantized_resnet
from hardened_nets import hardened, plan_for
from small_nets import digits, trained
from torch import Tensor, nn

from ftnas.cost import measure
from ftnas.faults import Injection, inject
from ftnas.networks.correction import CORRECTIONS, Method, Rule, split_table
from ftnas.networks.correction_unit import PURELY_REDUNDANT
from ftnas.networks.hardened import hardened_layers
from ftnas.quantization import FixedPoint, Number, tapped

FAULTS = ("features.bit_flip:0.01", "weights.bit_flip:0.01", "features.mac_bit_bias:0.001",
          "features.bit_flip:0.003, weights.bit_flip:0.0003")  # fmt: skip
RULES = [pair for pair in CORRECTIONS if pair[0] in PURELY_REDUNDANT]


def net_and_images(name: str) -> tuple[nn.Module, Tensor]:
    if name == "small":
        return trained()[0], digits().test_images[:24]
    net, images = quantized_resnet() if name == "of a user" else baseline(name)
    return net, images[:24]


def computing_all(net: nn.Module) -> nn.Module:
    """Return ``net`` with hooks that wait for every part to be called, so that each computes."""
    for layer in hardened_layers(net).values():
        layer.layer.register_forward_hook(lambda *_: None)
    return net


def answer(net: nn.Module, images: Tensor, faults: str) -> tuple[Tensor, dict[str, object]]:
    with torch.no_grad(), inject(net, faults.split(", "), chip=2) as injection:
        found = net(images)
    return found, dict(injection.counts)


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("method, rule", RULES)
def test_a_shared_product_gives_what_each_part_computes(method: Method, rule: Rule, every: int, faults: str) -> None:
    net, images = net_and_images("small")
    found, counts = answer(hardened(net, images, method, rule, every=every), images, faults)
    expected, all_counts = answer(computing_all(hardened(net, images, method, rule, every=every)), images, faults)
    assert torch.equal(found, expected) and counts == all_counts


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "of a user"])
@pytest.mark.parametrize("method", PURELY_REDUNDANT)
def test_so_do_groups_sums_and_converted_layers(method: Method, name: str) -> None:
    net, images = net_and_images(name)
    found, _ = answer(hardened(net, images, method, every=2), images, FAULTS[-1])
    expected, _ = answer(computing_all(hardened(net, images, method, every=2)), images, FAULTS[-1])
    assert torch.equal(found, expected)


class Touching:
    """A tap that changes some values, and says which, or that it does not know."""

    def __init__(self, *, tells: bool) -> None:
        self._tells = tells

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> np.ndarray | None:
        assert isinstance(number, FixedPoint)
        elements = np.arange(0, features.numel(), 7)
        flat = features.reshape(-1)
        flat[::7] = number.decode(torch.full_like(flat[::7], number.high))
        features.copy_(flat.view(features.shape))
        return elements if self._tells else None


@pytest.mark.parametrize("method", PURELY_REDUNDANT)
def test_a_tap_that_does_not_say_what_it_touched_is_met_by_a_unit_that_looks_at_all(method: Method) -> None:
    net, images = net_and_images("small")
    split = hardened(net, images, method, every=2)
    found = []
    for tells in (True, False):
        with torch.no_grad(), tapped(Touching(tells=tells)):
            found.append(split(images))
    assert torch.equal(*found)


def test_an_injection_says_which_values_it_has_met() -> None:
    net, images = net_and_images("small")
    seen: list[tuple[Tensor, Tensor, np.ndarray]] = []

    class Watching(Injection):
        def output(self, layer: nn.Module, features: Tensor, number: Number) -> np.ndarray:
            before = features.clone()
            touched = super().output(layer, features, number)
            assert touched is not None
            seen.append((before, features.clone(), touched))
            return touched

    with torch.no_grad(), inject(net, "features.bit_flip:0.01") as injection:
        source = injection._source
    with torch.no_grad(), tapped(Watching(net, source, first_image=0, gradient="masked")):
        net(images)
    assert seen and all(len(touched) for *_, touched in seen)
    for before, after, touched in seen:
        changed = (before != after).flatten().nonzero().flatten().tolist()
        assert set(changed) <= set(touched.tolist())


@pytest.mark.parametrize("bits, signed", [(4, True), (6, False)])
@pytest.mark.parametrize("rule", ["min", "mean", "sum"])
def test_the_table_of_halves_is_the_rule_of_every_pair(rule: Rule, bits: int, signed: bool) -> None:
    number = FixedPoint(bits, 1.0, signed)
    codes = range(number.low, number.high + 1)
    pairs = [(torch.tensor([upper]), torch.tensor([lower])) for upper in codes for lower in codes]
    expected = [int(CORRECTIONS["split", rule](pair, number, [])) for pair in pairs]
    assert split_table(rule, bits, signed).tolist() == expected


def test_what_is_counted_is_what_every_part_would_do() -> None:
    net, images = net_and_images("small")
    split = hardened(net, images, "split")
    assert plan_for(net, images, "split") and measure(split, (1, 8, 8)).macs == 2 * measure(net, (1, 8, 8)).macs
