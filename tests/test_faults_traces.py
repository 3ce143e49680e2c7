"""Injection leaves no trace: right gradients, and nothing of the user's changed."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from faulty_net import (
    EVERY_FAULT,
    LEARNED,
    Net,
    some_images,
    state,
    trained_net,
)
from torch import Tensor

from ftnas.faults import BitBias, BitFlip, Fault, StuckCell, draw_plan, inject
from ftnas.quantization import Quantization, current_tap


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


def test_the_gradient_passes_unchanged_through_feature_faults(net: Net, images: Tensor) -> None:
    layer, slope = net.stem, torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))

    def gradients() -> tuple[Tensor, Tensor]:
        x = images.clone().requires_grad_()
        (layer(x) * slope).sum().backward()
        return x.grad, layer.weight.grad  # type: ignore[return-value]

    layer.zero_grad()
    clean = [gradient.clone() for gradient in gradients()]
    layer.zero_grad()
    with inject(net, BitBias(0.5)) as injection:
        faulty = gradients()
    assert injection.counts["stem.output"].effective > 0
    assert all(torch.equal(a, b) for a, b in zip(clean, faulty, strict=True))
    layer.zero_grad()


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_gradient_of_faulty_weights_is_masked_or_straight_through(
    net: Net, images: Tensor, channels_last: bool
) -> None:
    model = copy.deepcopy(net)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    slope = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))

    def gradient() -> Tensor:
        model.zero_grad()
        (model.stem(images) * slope).sum().backward()
        return model.stem.weight.grad.clone()  # type: ignore[union-attr]

    clean, faults = gradient(), [StuckCell(0.1), BitFlip(0.01)]
    with inject(model, faults, gradient="straight_through"):
        assert torch.allclose(gradient(), clean, atol=1e-4)
    with inject(model, faults):
        masked = gradient()
    hit = torch.zeros(clean.numel(), dtype=torch.bool)
    for planned in draw_plan(model, faults).sites.values():
        if planned.site == "stem.weight":
            hit[planned.events.element] = True
    hit = hit.view(clean.shape)
    assert bool(hit.any())
    assert bool((masked[hit] == 0).all())
    assert torch.allclose(masked[~hit], clean[~hit], atol=1e-4)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_a_faulty_training_step_has_finite_gradients(fault: Fault, net: Net, images: Tensor) -> None:
    model = copy.deepcopy(net).train()
    with inject(model, fault):
        model(images).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("choice", [Quantization(), LEARNED], ids=str)
def test_nothing_of_the_users_is_changed(choice: Quantization, fails: bool, training: bool, images: Tensor) -> None:
    model = Net((choice,))
    model(images)
    model.train(training)
    before = state(model, images)
    try:
        with inject(model, EVERY_FAULT):
            model(images)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state(model, images) == before
    assert current_tap() is None


def test_a_clean_pass_after_an_injection_is_clean(net: Net, images: Tensor) -> None:
    clean = net(images)
    with inject(net, EVERY_FAULT):
        assert not torch.equal(net(images), clean)
    assert torch.equal(net(images), clean)


def test_two_threads_attack_one_model_at_once(net: Net, images: Tensor) -> None:
    def run(chip: int) -> Tensor:
        with inject(net, EVERY_FAULT, chip=chip), torch.no_grad():
            return net(images)

    expected = [run(chip) for chip in range(2)]
    results: list[list[Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(chip: int) -> None:
        barrier.wait()
        results[chip] += [run(chip) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(chip,)) for chip in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(runs) == 10 for runs in results)
    assert all(torch.equal(run, expected[chip]) for chip in range(2) for run in results[chip])
