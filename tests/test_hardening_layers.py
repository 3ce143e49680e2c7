"""A hardened net computes what the net did, its copies are fault sites of their own, and it trains and loads."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from export_nets import baseline, quantized_resnet
from hardened_nets import cut_off, hardened, logits, part, plan_for
from small_nets import digits, same_bits, small_net, state, trained
from torch import Tensor, nn

from ftnas.cost import measure
from ftnas.errors import HardeningError, ModelError
from ftnas.export.tracing import graph_of
from ftnas.export.weights import load_weights, save_weights
from ftnas.faults import CompiledNet, Plan, explicit_plan, expose, inject, output_shapes, sites
from ftnas.faults.explicit import Flip
from ftnas.files import read_json, write_json
from ftnas.hardening.overhead import size_of
from ftnas.hardening.passes import calibrate_, under_hardened_names
from ftnas.networks.correction import COPIES, CORRECTIONS, Method, Rule
from ftnas.networks.correction_unit import PURELY_REDUNDANT, CorrectionUnit
from ftnas.networks.hardened import hardened_layers, protect_, protections_of
from ftnas.networks.protection import METHODS, Protection
from ftnas.quantization import (
    CodeHalf,
    Quantization,
    QuantizedConv2d,
    QuantizedLayer,
    Range,
    RedundantCopy,
    Unchanging,
    quantized_layers,
    tapped,
)

NETS = ("small", "resnet20", "mobilenet_v2", "of a user")
SPEC = {"baseline": "resnet20", "width": 0.15, "numbers": {"weight_bits": 8, "weight_range": "power_of_two",
        "feature_bits": 8, "feature_range": "power_of_two"}, "image_shape": [1, 8, 8], "classes": 10}  # fmt: skip


@cache
def net_and_images(name: str) -> tuple[nn.Module, Tensor]:
    if name == "small":
        return trained()[0], digits().test_images[:64]
    return quantized_resnet() if name == "of a user" else baseline(name)


def plan_of_flips(net: nn.Module, images: Tensor, flips: list[Flip]) -> Plan:
    return explicit_plan(net, flips, shapes=output_shapes(net, images[:1]), images=1)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_without_faults_a_split_net_gives_the_logits_of_the_net_with_the_same_clamp(name: str, every: int) -> None:
    net, images = net_and_images(name)
    split = hardened(net, images, "split", every=every)
    expected = logits(cut_off(net, plan_for(net, images, "split", every=every)), images)
    assert torch.equal(logits(split, images), expected)
    with tapped(Unchanging()):  # so that halves are stored, and merged
        assert torch.equal(logits(split, images), expected)


@pytest.mark.parametrize("method", ["duplicate_min", "tmr", "bound"])
@pytest.mark.parametrize("name", NETS)
def test_without_faults_other_redundancy_gives_the_logits_of_the_net(name: str, method: Method) -> None:
    net, images = net_and_images(name)
    redundant, expected = hardened(net, images, method, every=2), logits(net, images)
    assert torch.equal(logits(redundant, images), expected)
    with tapped(Unchanging()):
        assert torch.equal(logits(redundant, images), expected)


def test_a_guard_leaves_the_images_alone_that_it_was_calibrated_on() -> None:
    net, images = net_and_images("small")
    for rule in ("zero", "clip"):
        assert torch.equal(logits(hardened(net, images, "guard", rule), images), logits(net, images))  # type: ignore[arg-type]


def test_halves_by_weights_add_up_beside_rounding() -> None:
    net, data = trained()[0], digits()
    split = hardened(net, data.train_images[:256], "split_weights")
    agreed = logits(split, data.test_images).argmax(1) == logits(net, data.test_images).argmax(1)
    assert agreed.float().mean() >= 0.99


def test_a_copy_is_a_layer_with_sites_and_faults_of_its_own() -> None:
    net, images = net_and_images("small")
    tripled = hardened(net, images, "tmr", every=2)
    names = {site.name for site in sites(tripled)}
    assert {"first.layer.weight", "first.copies.0.weight", "first.copies.1.output"} <= names
    with torch.no_grad(), inject(tripled, ["features.bit_flip:0.02", "weights.bit_flip:0.02"]) as injection:
        tripled(images)
    hit = [injection.counts[f"first.copies.{number}.{kind}"].effective for number in (0, 1)
           for kind in ("weight", "output")]  # fmt: skip
    assert min(hit) > 0 and len(set(hit)) > 1


@pytest.mark.parametrize("copy_hit", ["layer", "copies.0", "copies.1"])
def test_any_one_copy_may_lose_every_bit(copy_hit: str) -> None:
    net, images = net_and_images("small")
    tripled = hardened(net, images, "tmr")
    flips = [Flip(f"second.{copy_hit}.output", element=0, bit=bit, image=0) for bit in range(8)]
    with torch.no_grad(), inject(tripled, plan_of_flips(tripled, images, flips)):
        assert torch.equal(tripled(images[:1]), net(images[:1]))


def test_an_upset_of_a_stored_half_reaches_the_unit_and_is_corrected() -> None:
    net, images = net_and_images("small")
    split, plain = (hardened(net, images, "split", rule) for rule in ("min", "sum"))  # type: ignore[arg-type]
    second = net.second(F.relu(net.first(images[:1])))  # type: ignore[operator]
    flips = [Flip("second.copies.0.output", element=int(second.argmax()), bit=6)]
    for hardened_net, is_right in ((split, True), (plain, False)):
        clean = logits(hardened_net, images[:1])
        with torch.no_grad(), inject(hardened_net, plan_of_flips(hardened_net, images, flips)):
            assert torch.equal(hardened_net(images[:1]), clean) == is_right


@pytest.mark.parametrize("method", METHODS)
def test_the_cost_of_copies_is_counted(method: Method) -> None:
    net, images = net_and_images("small")
    before, after = (size_of(model, (1, 8, 8)) for model in (net, hardened(net, images, method)))
    copies = {"tmr": 2, "guard": 0, "bound": 0}.get(method, 1)
    assert after.macs == measure(hardened(net, images, method), (1, 8, 8)).macs == (1 + copies) * before.macs
    assert after.parameters == (1 + copies) * before.parameters
    assert after.weight_bits == (1 + copies) * before.weight_bits
    assert after.activation_bytes == (1 + copies) * before.activation_bytes
    assert (after.unit_operations > 0) == (method != "bound")


@pytest.mark.parametrize("method", ["split", "duplicate_min", "tmr"])
def test_a_hardened_net_learns_as_the_net_does(method: Method) -> None:
    """The gradient of a weight is what it was: halves carry half of it each, copies an equal share."""
    net, images = net_and_images("small")
    plain, protected = copy.deepcopy(net), hardened(net, images, method)
    with tapped(Unchanging()):
        for model in (plain, protected):
            model(images).square().sum().backward()
    found = {name.replace(".layer", ""): parameter.grad for name, parameter in protected.named_parameters()}
    for name, parameter in plain.named_parameters():
        assert torch.allclose(parameter.grad, found[name], rtol=1e-3, atol=1e-4), name  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_training_changes_the_layer_and_its_copies_together(method: Method) -> None:
    images, labels = digits().train_images[:64], digits().train_labels[:64]
    plain = small_net(8)
    plain.train()(images)
    net = hardened(plain, images, method).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with inject(net, "features.bit_flip:1e-3"):
        F.cross_entropy(net(images), labels).backward()
    before = state(net)
    optimizer.step()
    assert not same_bits(before, state(net))
    for layer in quantized_layers(net).values():
        if isinstance(layer, RedundantCopy):
            assert torch.equal(layer.weight, layer.rows(layer.whole.weight))


def test_ranges_are_measured_of_whole_outputs() -> None:
    images = digits().train_images[:64]
    plain = small_net(8)
    plain.train()(images)
    split = hardened(plain, images, "split").train()
    split(images)
    plain.train()(images)
    assert torch.equal(part(split, "first").layer.feature_limit, plain.first.feature_limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_a_hardened_net_is_rebuilt_from_its_file(method: Method, tmp_path: Path) -> None:
    net, images = net_and_images("resnet20")
    protected = hardened(net, images, method, every=2)
    save_weights(tmp_path / "net.safetensors", protected, SPEC)
    again = load_weights(tmp_path / "net.safetensors")
    assert protections_of(again) == protections_of(protected) != {}
    assert torch.equal(logits(again, images), logits(protected, images))


@pytest.mark.parametrize("method", ["split", "split_weights", "tmr", "bound"])
def test_a_faulty_chip_of_a_hardened_net_is_rebuilt_with_the_weights_of_each_copy(
    method: Method, tmp_path: Path
) -> None:
    net, images = net_and_images("resnet20")
    protected = hardened(net, images, method)
    fault = "weights.bit_flip:0.01"
    twin = graph_of(protected, images[:1], name="net", faults=fault, chip=3)
    save_weights(tmp_path / "net.safetensors", protected, SPEC, twin=twin)
    with torch.no_grad(), inject(protected, fault, chip=3, study="campaign"):
        expected = protected(images)
    assert torch.equal(logits(load_weights(tmp_path / "net.safetensors"), images), expected)


def test_a_file_whose_plan_does_not_fit_is_refused(tmp_path: Path) -> None:
    net, images = net_and_images("resnet20")
    save_weights(tmp_path / "net.safetensors", hardened(net, images, "split"), SPEC)
    file = tmp_path / "net.json"
    content = read_json(file)
    for plan, words in (
        ({"nowhere": Protection("bound", "zero").to_dict()}, "nowhere"),
        ({"classifier": {}}, "method"),
    ):
        write_json(file, {**content, "hardening": plan})
        with pytest.raises(ModelError, match=words):
            load_weights(tmp_path / "net.safetensors")


def test_two_nets_under_the_same_names_meet_the_same_faults() -> None:
    net, images = net_and_images("small")
    split = hardened(net, images, "split")
    plain = under_hardened_names(net, protections_of(split))
    counts = []
    for model in (plain, split):
        with torch.no_grad(), inject(model, "features.bit_flip:0.01") as injection:
            model(images)
        counts.append({name: count.planned for name, count in injection.counts.items() if "copies" not in name})
    assert counts[0] == counts[1]


def test_calibration_is_that_of_all_batches() -> None:
    net, images = net_and_images("small")
    guarded = hardened(net, images, "guard")
    low, high = part(guarded, "first").unit.limits
    calibrate_(guarded, images[:5])
    assert bool((part(guarded, "first").unit.limits[0] >= low).all())
    calibrate_(guarded, torch.cat([images[5:], images[:5]]))
    assert torch.equal(part(guarded, "first").unit.limits[1], high)


def test_a_bound_reads_weights_beyond_their_channel_as_zero() -> None:
    net, images = net_and_images("small")
    bound = hardened(net, images, "bound")
    weight = bound.first.weight.detach()  # type: ignore[union-attr]
    number = bound.first.weight_number(weight)  # type: ignore[union-attr, operator]
    codes = number.encode(weight)
    small = int(codes[0].abs().argmin())
    with torch.no_grad(), inject(bound, explicit_plan(bound, [Flip("first.weight", element=small, bit=6)])):
        found = bound.first.quantized_weight(bound.first.weight, bound.first.quantization)  # type: ignore
    assert float(found.flatten()[small]) == 0.0
    assert torch.equal(found[1:], number.decode(codes)[1:])


def test_a_hardened_net_compiles_without_another_graph() -> None:
    net, images = net_and_images("small")
    for method in ("split", "tmr"):
        split = hardened(net, images, method, every=2)  # type: ignore[arg-type]
        compiled = CompiledNet(split, images[:8], "features.bit_flip:0.01", backend="eager")
        with torch.no_grad(), inject(split, "features.bit_flip:0.01", chip=1):
            expected = split(images[:8])
        assert torch.equal(compiled(images[:8], chip=1), expected)


def refusal(net: nn.Module, plan: dict[str, Protection]) -> str:
    before = [*net.modules()]
    with pytest.raises(HardeningError) as error:
        protect_(net, plan)
    assert [*net.modules()] == before
    return str(error.value)


def test_what_cannot_be_protected_is_refused() -> None:
    net, images = net_and_images("small")
    one = Protection("split", "min", (0,))
    assert "no quantised layer" in refusal(copy.deepcopy(net), {"third": one})
    assert "is hardened already" in refusal(hardened(net, images, "split"), {"first": one})
    assert "is hardened already" in refusal(hardened(net, images, "split"), {"first.layer": one})
    assert "no channel 16" in refusal(copy.deepcopy(net), {"first": Protection("split", "min", (16,))})
    floats = expose(nn.Sequential(nn.Conv2d(1, 4, 3)), images)
    assert "stores float32 values" in refusal(floats, {"0": one})
    mobile, _ = net_and_images("mobilenet_v2")
    grouped = nn.Sequential(copy.deepcopy(net.first))  # type: ignore[union-attr, arg-type]
    grouped[0].groups = 2
    assert "protect whole groups" in refusal(grouped, {"0": Protection("split", "min", (0, 1, 2))})
    summed = next(path for path, layer in quantized_layers(mobile).items() if layer.kind == "sum")
    assert "sum without weights" in refusal(copy.deepcopy(mobile), {summed: Protection("split_weights", "min", (0,))})


def test_narrow_codes_are_not_split() -> None:
    net, _ = quantized_resnet(3)
    path = next(iter(quantized_layers(net)))
    assert "needs 4 or more" in refusal(copy.deepcopy(net), {path: Protection("split", "min", (0,))})
    assert hardened_layers(protect_(copy.deepcopy(net), {path: Protection("tmr", "majority", (0,))}))


def test_a_storage_of_halves_keeps_other_channels() -> None:
    half = CodeHalf(upper=True, channels=torch.tensor([1]))
    net, images = net_and_images("small")
    layer = copy.deepcopy(net.first)  # type: ignore[union-attr]
    assert isinstance(layer, QuantizedLayer)
    whole = logits(layer, images)
    layer.storage = half
    assert torch.equal(logits(layer, images), whole)  # nobody sees halves where nothing can fail
    with tapped(Unchanging()):
        found = logits(layer, images)
    assert torch.equal(found[:, 2:], whole[:, 2:]) and not torch.equal(found[:, 1], whole[:, 1])


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("method, rule", [pair for pair in CORRECTIONS if pair[0] in PURELY_REDUNDANT])
def test_what_a_unit_repairs_is_what_its_rule_makes_of_any_codes(method: Method, rule: Rule, signed: bool) -> None:
    """Every pair of 6-bit codes, and with a third one that is drawn, on a scale whose products are not exact."""
    layer = QuantizedConv2d(1, 1, 3, choices=(Quantization(feature_bits=6, feature_signed=signed),))
    layer.feature_limit.fill_(0.7)
    layer.quantization = replace(layer.quantization, feature_range=Range("max"))
    unit = CorrectionUnit(layer, Protection(method, rule, (0,)), None)
    number = unit.number()
    codes = torch.arange(number.low, number.high + 1)
    pairs = [code.reshape(1, 1, 64, 64) for code in torch.meshgrid(codes, codes, indexing="ij")]
    third = torch.randint(number.low, number.high + 1, (1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    copies = [*pairs, third][: 1 + COPIES[method]]
    right = CORRECTIONS[method, rule](copies, number, [])
    assert torch.equal(unit([number.decode(copy) for copy in copies]), number.decode(right))
