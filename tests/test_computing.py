"""Precision, layout and compilation of trainings: what they change, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from robust_nets import robust_net
from small_nets import digits, same_bits, state
from torch import nn
from torch._dynamo.utils import counters

from ftnas.errors import ConfigError
from ftnas.faults import parse_fault
from ftnas.quantization import FixedPoint, Quantization, QuantizedConv2d, quantized_layers
from ftnas.quantization.ranges import ends_of
from ftnas.quantization.rounding import power_of_two_above, powers_of_two_above
from ftnas.runtime import place
from ftnas.training import EpochRecord, TrainingSettings, check_computing, in_precision, train
from ftnas.training.computing import computed

CPU = torch.device("cpu")
FAULTS = [parse_fault("features.mac_bit_bias:1e-2")]


def trained(net: nn.Module | None = None, **settings: Any) -> tuple[nn.Module, list[EpochRecord]]:
    net = net or place(robust_net(), CPU)
    images, labels = digits().train_images[:96], digits().train_labels[:96]
    chosen = TrainingSettings.model_validate({"epochs": 1, "batch_size": 32, **settings})
    return net, train(net, images, labels, settings=chosen, faults=FAULTS, key="computing")


def codes_are_whole(values: torch.Tensor, number: FixedPoint) -> bool:
    codes = values.double() / number.scale
    return bool((codes == codes.round()).all())


def test_codes_of_eight_bits_are_exact_in_bfloat16() -> None:
    number = FixedPoint(8, 2.0**-5)
    codes = torch.arange(number.low, number.high + 1)
    assert torch.equal(number.encode(number.decode(codes).bfloat16().float()), codes.int())


def test_codes_of_ten_bits_are_not() -> None:
    number = FixedPoint(10, 2.0**-5)
    codes = torch.arange(number.low, number.high + 1)
    assert not torch.equal(number.encode(number.decode(codes).bfloat16().float()), codes.int())


def test_features_of_a_bf16_pass_are_bfloat16_and_on_their_grid() -> None:
    net, seen = robust_net().train(), {}
    for name, layer in quantized_layers(net).items():
        layer.register_forward_hook(lambda layer, _, y, name=name: seen.update({name: (y, layer.feature_number())}))
    logits = in_precision(net, "bf16", CPU)(digits().train_images[:16])
    assert logits.dtype == torch.float32
    assert {y.dtype for y, _ in seen.values()} == {torch.bfloat16}
    assert all(codes_are_whole(y, number) for y, number in seen.values())


def test_parameters_and_statistics_stay_float32_in_bf16() -> None:
    net, records = trained(precision="bf16")
    assert {value.dtype for value in state(net).values()} == {torch.float32, torch.int64}
    assert 0 < records[0].loss < 10


def test_bf16_trains_as_float32_but_for_rounding() -> None:
    (_, [wide]), (_, [narrow]) = trained(), trained(precision="bf16")
    assert narrow.clean_loss != wide.clean_loss
    assert narrow.clean_loss == pytest.approx(wide.clean_loss, rel=0.05)


def test_contiguous_weights_stay_contiguous() -> None:
    net, _ = trained(channels_last=False)
    weight = net.second.weight
    assert weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last)
    assert trained()[0].second.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "tf32"}, r"training.precision: tf32 is for GPUs, the device is cpu; take float32 or bf16"),
        ({"compile": "cuda_graphs"}, r"training.compile: cuda_graphs is for GPUs, the device is cpu; take default"),
    ],
)
def test_what_needs_a_gpu_is_refused_on_the_cpu(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trained(**settings)


@pytest.mark.parametrize("choice", [Quantization(weight_bits=10), Quantization(word="float16")])
def test_bf16_refuses_what_it_cannot_hold(choice: Quantization) -> None:
    net = nn.Sequential(QuantizedConv2d(1, 2, 3, choices=(choice,)))
    with pytest.raises(ConfigError, match=r"training.precision: bf16 holds codes of at most 8 bits, 0 has .*; take"):
        check_computing("training", TrainingSettings(precision="bf16"), net, CPU)


@pytest.mark.parametrize(
    "settings", [{"objective": "sam"}, {"objective": "saq"}, {"objective": "worst_bits"}, {"sparsity": {"l1": 0.1}}]
)
def test_what_cannot_be_compiled_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="compile: default is for the objectives qat, ftt, randbet without sparsity"):
        TrainingSettings.model_validate({"compile": "default", **settings})


def test_the_range_of_a_tensor_ends_where_that_of_a_number_does() -> None:
    exact = 2.0 ** torch.arange(-20, 20)
    peaks = torch.cat([exact, exact * (1 + 2**-23), exact * (1 - 2**-24), torch.rand(100), torch.zeros(1)])
    ends = [power_of_two_above(float(peak)) for peak in peaks]
    assert powers_of_two_above(peaks).tolist() == ends
    for policy in (Quantization().weight_range, Quantization().feature_range):
        assert ends_of(policy, peaks).tolist() == ends


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself
@pytest.mark.parametrize("objective", ["qat", "ftt"])
def test_a_compiled_training_is_the_training(objective: str) -> None:
    (plain, records), (compiled, others) = trained(objective=objective), trained(objective=objective, compile="default")
    assert others[0].clean_loss == pytest.approx(records[0].clean_loss, rel=1e-4)
    for name, value in state(plain).items():
        torch.testing.assert_close(state(compiled)[name], value, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself
def test_as_many_nets_of_a_process_are_compiled_as_ask_for_it() -> None:
    before = counters["stats"]["unique_graphs"]
    for width in range(1, 11):
        model = nn.Sequential(nn.Linear(4, width))
        computed(model, "float32", CPU, compile="default")(torch.zeros(2, 4))
    assert counters["stats"]["unique_graphs"] == before + 10


def test_a_training_is_repeated_to_the_bit_in_bf16() -> None:
    assert same_bits(state(trained(precision="bf16")[0]), state(trained(precision="bf16")[0]))
