"""Terms beside the loss: their values, what they do to a net, and activations of other kinds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_nets import robust_net
from small_trainings import hundred_digits, run
from torch import Tensor, nn

from ftnas.quantization import Activation, Quantization, QuantizedConv2d, QuantizedLinear, Range, Rectifier
from ftnas.runtime import keyed_generator
from ftnas.training import Step, TrainingSettings, build_objective, penalties, penalties_of, zero_share
from ftnas.training.penalties import OF_ACTIVATIONS, lipschitz_bound, lipschitz_excess, weight_ranges


def l1(values: Tensor) -> Tensor:
    return values.abs().mean()


def hoyer(values: Tensor) -> Tensor:
    flat = values.flatten(1)
    return (flat.abs().sum(1) ** 2 / (flat**2).sum(1)).mean()


@pytest.mark.parametrize(("name", "formula"), [("l1", l1), ("hoyer", hoyer)])
def test_the_gradient_of_a_term_is_that_of_its_formula(name: str, formula: Callable[[Tensor], Tensor]) -> None:
    values = torch.randn(3, 4, 5, generator=keyed_generator("values")).relu().requires_grad_()
    (expected,) = torch.autograd.grad(formula(values), values)
    assert torch.allclose(OF_ACTIVATIONS[name](values.detach()) * (values > 0), expected, atol=1e-6)


@pytest.mark.parametrize("name", OF_ACTIVATIONS)
def test_values_that_are_0_get_no_gradient(name: str) -> None:
    x = torch.tensor([[-1.0, 0.0, -2.0], [-1.0, 0.5, 2.0]]).repeat(4, 1).requires_grad_()
    activation = Activation()
    activation.term = penalties.ActivationTerm({name: 1.0})
    activation(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, x <= 0)
    assert x.grad.isfinite().all()


class OwnNet(nn.Module):
    """The net of ``robust_net`` with torch's own activations, as a user's has."""

    def __init__(self) -> None:
        super().__init__()
        self.net = robust_net()
        self.net.activations = nn.ModuleList([nn.ReLU(), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("name", OF_ACTIVATIONS)
def test_a_step_has_the_gradient_of_loss_and_terms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "PART", 1)
    formula = {"l1": l1, "hoyer": hoyer}[name]
    images, labels = hundred_digits()
    judge = robust_net()
    first = judge.activations[0](judge.first(images))
    second = judge.activations[1](judge.second(first))
    logits = judge.classifier(nn.functional.max_pool2d(second, 2).flatten(1))
    (nn.functional.cross_entropy(logits, labels) + 0.3 * (formula(first) + formula(second))).backward()
    expected = {name: parameter.grad for name, parameter in judge.named_parameters()}
    settings = TrainingSettings.model_validate({"objective": "qat", "sparsity": {name: 0.3}})
    for net, prefix in ((robust_net(), ""), (OwnNet(), "net.")):
        build_objective(settings, (), study="test").gradient(net, net, Step(images, labels, 0))
        for key, parameter in net.named_parameters():
            assert torch.allclose(parameter.grad, expected[key.removeprefix(prefix)], rtol=1e-3, atol=1e-6), key


def test_a_term_is_taken_on_the_first_eighth_of_a_batch() -> None:
    gradient, images = penalties.ActivationTerm({"l1": 2.0}).gradient(torch.ones(100, 5))
    assert images == 13
    assert torch.equal(gradient, torch.full((13, 5), 2 / 65))


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
    assert largest[1] == pytest.approx(lipschitz_bound(0.5), rel=0.2)


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
        found.append(sum(float(limit.detach()) for limit in weight_ranges(net)))
    assert found[1] < 0.9 * found[0]


def test_terms_follow_their_schedules_and_leave_nothing_behind() -> None:
    settings = TrainingSettings.model_validate({"sparsity": {"l1": {0: 0, 0.5: 2}}})
    for net in (robust_net(), OwnNet()):
        penalty = penalties_of(settings)
        with penalty.on_activations(net, 0.4):
            assert not any(getattr(module, "term", None) or module._forward_hooks for module in net.modules())
        with penalty.on_activations(net, 0.6):
            assert any(getattr(module, "term", None) or module._forward_hooks for module in net.modules())
        assert not any(getattr(module, "term", None) or module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("text", ["relu", "relu6", "clipped(0.5)", "fatrelu(0.1)"])
def test_with_a_term_of_weight_0_an_activation_has_its_own_gradient(text: str) -> None:
    grads = []
    for term in (None, penalties.ActivationTerm({"l1": 0.0})):
        x = torch.randn(4, 30, generator=keyed_generator("x")).mul_(4).requires_grad_()
        activation = Activation(Rectifier.parse(text))
        activation.term = term
        activation(x).square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


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
