"""What a budget buys, in which order, and what is said where it buys nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from export_nets import baseline
from small_nets import digits, trained
from torch import nn

from ftnas.errors import FaultError, HardeningError
from ftnas.faults import expose, parse_faults
from ftnas.hardening.methods import HardeningOptions, parse_ratio, rule_for
from ftnas.hardening.overhead import RESOURCES, Resource
from ftnas.hardening.passes import Hardening, harden
from ftnas.hardening.vulnerability import LayerVulnerability
from ftnas.networks.correction import Method
from ftnas.quantization import FixedPoint, quantized_layers


def made_up(net: nn.Module, **scores: list[float]) -> dict[str, LayerVulnerability]:
    """Return vulnerabilities of the layers of the small net: those of ``scores``, 0 for other channels."""
    found = {}
    for path, size in (("first", 16), ("second", 32), ("classifier", 10)):
        given = torch.tensor(scores.get(path, []) + [0.0] * size)[:size]
        changed = given.view(-1, 1).expand(-1, 8).clone()
        zeros = torch.zeros_like(changed)
        found[path] = LayerVulnerability(path, FixedPoint(8, 1.0), 100, changed, zeros, zeros[:, 0].bool())
    return found


def split(**options: Any) -> Hardening:
    net = trained()[0]
    known = options.pop("vulnerability", made_up(net))
    return harden(net, digits().train_images[:64], HardeningOptions(**options), vulnerability=known)


def channels(found: Hardening) -> dict[str, tuple[int, ...]]:
    return {path: protection.channels for path, protection in found.plan.items()}


@pytest.mark.parametrize("budget_in", RESOURCES)
@pytest.mark.parametrize("method", ["split", "tmr", "duplicate_min"])
@pytest.mark.parametrize("select", ["l1", "random", "nvf"])
def test_a_budget_is_kept_and_used(budget_in: Resource, method: Method, select: Any) -> None:
    found = split(budget=0.3, budget_in=budget_in, method=method, select=select)
    share = found.overhead.shares["work" if budget_in == "macs" else budget_in]
    assert 0.15 < share <= 0.3


def test_without_a_budget_all_is_protected() -> None:
    assert {path: len(chosen) for path, chosen in channels(split()).items()} == {
        "first": 16,
        "second": 32,
        "classifier": 10,
    }
    assert split().overhead.shares["macs"] == 1


def test_tmr_costs_twice_what_splitting_does_and_the_units_little() -> None:
    """Proof 6: extra(split) / extra(TMR) lies in 0.5..0.55, from the modules; on layers of 72 MACs or more a value."""
    net, images = baseline("resnet20")
    wide = [path for path, layer in quantized_layers(net).items() if layer.macs_per_value >= 72]
    assert not wide or len(wide) > 3
    layers = tuple(f"{path}=1" for path in (wide or quantized_layers(net)))
    ones = [harden(net, images, HardeningOptions(method, ratios=layers, select="random")).overhead.extra
            for method in ("split", "tmr")]  # fmt: skip
    for name in ("macs", "parameters", "weight_bits", "activation_bytes"):
        assert getattr(ones[0], name) / getattr(ones[1], name) == 0.5
    small = harden(trained()[0], digits().train_images[:64], HardeningOptions(ratios=("second=1",), select="random"))
    large = harden(
        trained()[0], digits().train_images[:64], HardeningOptions("tmr", ratios=("second=1",), select="random")
    )
    assert 0.5 <= small.overhead.extra.work / large.overhead.extra.work <= 0.55


def test_by_vulnerability_the_budget_goes_where_it_removes_most_for_its_cost() -> None:
    net = trained()[0]
    found = split(budget=0.03, vulnerability=made_up(net, first=[0, 0.5, 0, 0.25], second=[0.001]))
    assert channels(found)["first"] == (1, 3)
    assert 0 not in channels(found).get("second", ())


def test_a_ratio_protects_the_first_channels_of_its_layer_and_leaves_others_alone() -> None:
    found = split(ratios=("first=0.25",), vulnerability=made_up(trained()[0], first=[0, 0.1, 0.4, 0, 0.3, 0.2]))
    assert channels(found) == {"first": (1, 2, 4, 5)}


def test_the_last_ratio_that_fits_holds() -> None:
    assert set(channels(split(ratios=("*=0.5", "first=0", "classifier=1")))) == {"second", "classifier"}


def test_by_norm_the_largest_filters_come_first() -> None:
    weight = trained()[0].first.weight.detach().abs().flatten(1).sum(1)
    assert channels(split(ratios=("first=0.25",), select="l1"))["first"] == tuple(weight.topk(4).indices.sort().values)


def test_a_choice_by_chance_depends_on_its_seed_only() -> None:
    one, same, other = (channels(split(budget=0.3, select="random", seed=seed)) for seed in (0, 0, 1))
    assert one == same != other


def test_the_rest_of_a_budget_goes_to_layers_without_a_ratio() -> None:
    found = channels(split(budget=0.5, ratios=("first=1",), select="random"))
    assert len(found["first"]) == 16 and found["second"]


def test_grouped_channels_are_chosen_whole() -> None:
    net, images = baseline("mobilenet_v2")
    found = harden(net, images, HardeningOptions(budget=0.2, select="random"))
    assert found.plan and found.overhead.shares["work"] <= 0.2


@pytest.mark.parametrize(
    "method, faults, rule",
    [
        ("split", "features.bit_flip:0.01", "min"),
        ("split", ["features.bit_flip:0.01", "weights.bit_flip:0.01"], "min"),
        ("split", "weights.bit_flip:0.01", "mean"),
        ("split_weights", "weights.bit_flip:0.01", "mean"),
        ("duplicate_min", "weights.bit_flip:0.01", "mean"),
        ("tmr", "features.bit_flip:0.01", "majority"),
        ("tmr", "weights.bit_flip:0.01", "median"),
        ("guard", "weights.bit_flip:0.01", "zero"),
        ("bound", "weights.bit_flip:0.01", "zero"),
    ],
)
def test_the_rule_suits_the_faults(method: Method, faults: Any, rule: str) -> None:
    assert rule_for(HardeningOptions(method), parse_faults(faults)) == rule


@pytest.mark.parametrize(
    "options, words",
    [
        ({"budget": 1e-5}, "less than one channel: the cheapest, of"),
        ({"budget": 1e-5, "budget_in": "parameters"}, "allowed is"),
        ({"budget": 0.0}, "above 0"),
        ({"ratios": ("nowhere=0.5",)}, "'nowhere' is no layer"),
        ({"ratios": ("first=0",)}, "without a protected channel"),
        ({"ratios": ("first=1.5",)}, "from 0 to 1"),
        ({"ratios": ("first",)}, "LAYER=SHARE"),
        ({"ratios": ("second=1",), "budget": 0.1}, "of 8,422"),
        ({"method": "bound", "budget": 0.1}, "at no cost in MACs"),
        ({"method": "triple"}, "choose from split"),
        ({"rule": "median"}, "choose from min, mean, sum"),
        ({"images": 0}, "400"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(HardeningError, match=words) as error:
        split(**options)
    assert "\n" not in str(error.value)


def test_the_budget_that_is_named_as_allowed_is() -> None:
    with pytest.raises(HardeningError) as error:
        split(budget=1e-5, select="random")
    allowed = float(str(error.value).split("allowed is ")[1].split()[0])
    assert sum(map(len, channels(split(budget=1.1 * allowed, select="random")).values())) >= 1


def test_a_net_without_codes_is_refused() -> None:
    images = digits().train_images[:64]
    floats = expose(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)), images)
    with pytest.raises(HardeningError, match="only layers with integer codes"):
        harden(floats, images, HardeningOptions(select="random"))
    with pytest.raises(HardeningError, match="quantise it first"):
        harden(nn.Linear(2, 2), images)


def test_an_analysis_on_which_nothing_is_vulnerable_is_told() -> None:
    assert "no single flip" in split(budget=0.3).unchecked
    assert not split(budget=0.3, select="random").unchecked
    known = made_up(trained()[0], first=[0.5], second=[0.5], classifier=[0.5])
    assert not split(budget=0.3, vulnerability=known).unchecked


def test_a_ratio_is_read() -> None:
    assert parse_ratio("cells.*=0.5") == ("cells.*", 0.5)
    with pytest.raises(FaultError):
        parse_faults("features.nothing:1")
