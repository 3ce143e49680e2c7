"""Variation: every value changes a little, by normal numbers of the right size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faulty_net import IMAGES, Probe
from scipy import stats
from slow_faults import SURELY, applied, every_code, plan, site
from torch import Tensor, nn

from ftnas.faults import Fault, Gaussian, LogNormal, inject, parse_fault
from ftnas.quantization import FixedPoint, Quantization, QuantizedConv2d, Range

VARIED: list[Fault] = [LogNormal(0.1), Gaussian(0.1)]
SIGMAS = [0.01, 0.2, 1.0]


def layer(choice: Quantization | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(QuantizedConv2d(32, 64, 3, choices=(choice or Quantization(),)))


def varied(fault: Fault, model: nn.Sequential, *, chip: int = 0) -> tuple[Tensor, Tensor]:
    """Return the weight on its grid, and what ``fault`` makes of it."""
    weight = model[0].weight.detach()
    number = model[0].weight_number(weight)
    on_grid = number.decode(number.encode(weight))
    with inject(model, fault, chip=chip) as injection:
        return on_grid, injection.weight(model[0], on_grid, number)


def normals(fault: LogNormal | Gaussian, weight: Tensor, faulty: Tensor) -> np.ndarray:
    """Return the standard normals behind ``faulty``, of weights that are not zero."""
    used = weight != 0
    weight, faulty = weight.double()[used], faulty.double()[used]
    change = (faulty / weight).log() if isinstance(fault, LogNormal) else (faulty - weight) / weight.abs().amax()
    return (change / fault.sigma).numpy()


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("model", [LogNormal, Gaussian])
def test_the_variation_of_weights_is_normal_with_deviation_sigma(
    model: type[LogNormal] | type[Gaussian], sigma: float
) -> None:
    fault = model(sigma)
    z = normals(fault, *varied(fault, layer()))
    assert stats.kstest(z, "norm").pvalue > SURELY
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * len(z))


@pytest.mark.parametrize("fault", VARIED, ids=str)
def test_neighbouring_weights_vary_independently(fault: LogNormal | Gaussian) -> None:
    z = normals(fault, *varied(fault, layer()))
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 4 / np.sqrt(len(z))


@pytest.mark.parametrize("model", [LogNormal, Gaussian])
def test_a_chip_varies_in_the_same_direction_at_every_sigma(model: type[LogNormal] | type[Gaussian]) -> None:
    few, many = (normals(model(sigma), *varied(model(sigma), layer())) for sigma in (0.1, 0.8))
    assert np.allclose(few, many, atol=1e-3)


@pytest.mark.parametrize("fault", VARIED, ids=str)
def test_the_variation_of_weights_leaves_the_grid(fault: Fault) -> None:
    model = layer()
    _, faulty = varied(fault, model)
    codes = faulty / model[0].weight_number(model[0].weight).scale
    assert float((codes != codes.round()).float().mean()) > 0.9


def test_what_is_zero_stays_zero_where_variation_is_a_factor() -> None:
    weight, faulty = varied(LogNormal(1.0), layer())
    assert bool((weight == 0).any())
    assert torch.equal(faulty == 0, weight == 0)


@pytest.mark.parametrize("fault", VARIED, ids=str)
def test_weights_with_a_scale_per_channel_vary_relative_to_the_layer(fault: LogNormal | Gaussian) -> None:
    z = normals(fault, *varied(fault, layer(Quantization(weight_range=Range("max_per_channel")))))
    assert stats.kstest(z, "norm").pvalue > SURELY


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_noise_on_features_is_rounded_and_clamped(sigma: float, signed: bool) -> None:
    number, fault = FixedPoint(8, 0.5, signed), Gaussian(sigma, "features")
    codes = np.resize(every_code(number), 64 * 500)
    events = plan(fault, site(500)).events
    exact = codes + sigma * events.amount.view(np.float32).astype(np.float64) * max(number.high, -number.low)
    result = np.array(applied(codes.tolist(), fault, events, number))
    assert np.abs(result - exact.clip(number.low, number.high)).max() < 0.5001


@pytest.mark.parametrize("target", ["weights", "features"])
def test_every_value_varies_by_a_standard_normal_of_its_own(target: str) -> None:
    where = site(500) if target == "features" else site(32_000, kind="weight")
    events = plan(Gaussian(0.1, target), where).events  # type: ignore[arg-type]
    assert np.array_equal(events.element, np.arange(32_000))
    assert stats.kstest(events.amount.view(np.float32), "norm").pvalue > SURELY


def test_noise_on_features_is_drawn_anew_for_each_image() -> None:
    probe = Probe()
    probe.features = torch.zeros_like(probe.features)
    faulty = probe.faulty(Gaussian(0.1, "features"), [range(IMAGES)])
    assert len({tuple(image.flatten().tolist()) for image in faulty}) == IMAGES


@pytest.mark.parametrize("text", ["weights.log_normal:0", "weights.gaussian:0", "features.gaussian:0"])
def test_at_sigma_zero_nothing_varies(text: str) -> None:
    model = layer()
    weight, faulty = varied(parse_fault(text), model)
    assert torch.equal(weight, faulty)


@pytest.mark.parametrize("fault", VARIED, ids=str)
def test_the_gradient_reaches_weights_that_vary(fault: Fault) -> None:
    model = layer()
    model[0].weight.requires_grad_()
    x = torch.randn(4, 32, 6, 6, generator=torch.Generator().manual_seed(2))
    model(x)
    with inject(model.eval(), fault):
        model(x).square().sum().backward()
    assert float((model[0].weight.grad != 0).float().mean()) > 0.99
