"""Terms beside the loss: their values, what they do to a net, and activations of other kinds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_nets import robust_net
from small_trainings import hundred_digits, run
from torch import nn

from ftnas.quantization import Activation, Quantization, QuantizedConv2d, QuantizedLinear, Range, Rectifier
from ftnas.training import TrainingSettings, zero_share
from ftnas.training.penalties import (
    Penalties,
    hoyer_square,
    lipschitz_bound,
    lipschitz_excess,
    mean_magnitude,
    weight_ranges,
)


def test_l1_is_the_sum_over_layers_of_mean_magnitudes() -> None:
    assert mean_magnitude([torch.tensor([[1.0, -3.0]]), torch.full((2, 5), 4.0)]) == 2 + 4


def test_hoyer_counts_values_that_are_not_0_whatever_their_scale() -> None:
    values = torch.zeros(2, 3, 4)
    values[0, 0], values[1, :2] = 7.0, 0.01  # 4 alike in one image, 8 in the other
    assert float(hoyer_square([values])) == pytest.approx(6)
    assert float(hoyer_square([torch.zeros(2, 3)])) == 0


def test_the_bound_is_three_deviations_of_log_normal_variation() -> None:
    draws = np.random.default_rng(0).lognormal(sigma=0.5, size=1_000_000)
    assert 1 / lipschitz_bound(0.5) == pytest.approx(draws.mean() + 3 * draws.std(), rel=0.01)


@pytest.mark.parametrize(("rows", "columns"), [(3, 8), (8, 3)])
def test_the_excess_is_0_where_all_singular_values_are_the_bound(rows: int, columns: int) -> None:
    layer = QuantizedLinear(columns, rows)
    with torch.no_grad():
        layer.weight.copy_(0.3 * nn.init.orthogonal_(torch.empty(rows, columns)))
    model = nn.Sequential(layer)
    assert float(lipschitz_excess(model, 0.3).detach()) == pytest.approx(0, abs=1e-10)
    assert float(lipschitz_excess(model, 0.5).detach()) > 0.01


def test_training_with_the_lipschitz_term_brings_singular_values_to_the_bound() -> None:
    plain, bounded = robust_net(), robust_net()
    for net, weight in ((plain, 0.0), (bounded, 1.0)):
        given = {"objective": "qat", "epochs": 20, "batch_size": 32, "lipschitz": {"weight": weight, "sigma": 0.5}}
        run(TrainingSettings.model_validate(given), net=net)
    largest = [float(torch.linalg.matrix_norm(net.second.weight.detach().flatten(1), 2)) for net in (plain, bounded)]
    assert largest[1] < largest[0]
    assert largest[1] == pytest.approx(lipschitz_bound(0.5), rel=0.15)


def test_a_penalty_on_ranges_makes_learned_ranges_smaller() -> None:
    found = []
    for penalty in (0.0, 0.3):
        torch.manual_seed(0)
        net = nn.Sequential(
            QuantizedConv2d(1, 4, 3, choices=(Quantization(weight_range=Range("learned")),)),
            nn.Flatten(),
            QuantizedLinear(256, 10, choices=(Quantization(weight_range=Range("learned")),)),
        )
        given = {"objective": "qat", "epochs": 4, "batch_size": 32, "range_penalty": penalty, "learning_rate": 0.02}
        run(TrainingSettings.model_validate(given), net=net)
        found.append(sum(float(limit) for limit in weight_ranges(net)))
    assert found[1] < 0.9 * found[0]


def test_terms_follow_their_schedules_and_leave_no_hook() -> None:
    net = robust_net()
    penalties = Penalties({"l1": TrainingSettings.model_validate({"sparsity": {"l1": {0: 0, 0.5: 2}}}).sparsity.l1})
    with penalties.watching(net) as seen:
        net(hundred_digits()[0])
    assert len(seen) == 2
    assert penalties.total(net, seen, 0.4) is None
    total = penalties.total(net, seen, 0.6)
    assert total is not None
    assert torch.equal(total, 2 * mean_magnitude(seen))
    assert not any(module._forward_hooks for module in net.modules())


def test_the_share_of_zeros_is_the_mean_over_activations() -> None:
    net, images = robust_net(), hundred_digits()[0]
    net(images)
    training = net.training
    share = zero_share(net, images)
    assert net.training == training
    net.eval()
    first = net.activations[0](net.first(images))
    second = net.activations[1](net.second(first))
    assert share == pytest.approx(((first == 0).float().mean().item() + (second == 0).float().mean().item()) / 2)


# Activations


@given(st.sampled_from(["relu", "relu6", "clipped(2)", "clipped(0.25)", "fatrelu(0.1)"]))
def test_an_activation_is_its_text(text: str) -> None:
    assert str(Rectifier.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("relu", [0, 0, 0.05, 1, 9]),
        ("relu6", [0, 0, 0.05, 1, 6]),
        ("clipped(2)", [0, 0, 0.05, 1, 2]),
        ("fatrelu(0.1)", [0, 0, 0, 1, 9]),
    ],
)
def test_activations_rectify_bound_and_silence(text: str, values: list[float]) -> None:
    x = torch.tensor([-3.0, 0.0, 0.05, 1.0, 9.0])
    assert Activation(Rectifier.parse(text))(x).tolist() == pytest.approx(values)


@pytest.mark.parametrize("text", ["gelu", "clipped", "clipped(0)", "clipped(-1)", "fatrelu(inf)", "relu7"])
def test_an_unknown_activation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="activation"):
        Rectifier.parse(text)


def test_between_convolution_and_batch_norm_a_bound_cuts_a_huge_weight_off() -> None:
    outputs = []
    for limit in (math.inf, 1.0):
        torch.manual_seed(0)
        layer = QuantizedConv2d(1, 2, 3, rectifier=Rectifier(limit))
        layer(hundred_digits()[0])
        layer.eval()
        with torch.no_grad():
            clean = layer.product(hundred_digits()[0], layer.weight)
            faulty = layer.product(hundred_digits()[0], 1000 * layer.weight)
        outputs.append(float((faulty - clean).abs().max()))
    assert outputs[1] < 0.01 * outputs[0]
