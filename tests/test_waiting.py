"""No training step makes the host wait for a GPU, but for the decisions that are the host's by nature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from robust_nets import robust_net
from small_nets import digits, same_bits, state
from torch import Tensor, nn
from waiting import noting_waits, waits_of

from ftnas.data import Augmentation, batches
from ftnas.faults import parse_fault
from ftnas.networks import CellNetwork, build_baseline
from ftnas.quantization import Quantization, QuantizedConv2d, Range, left_on_device
from ftnas.runtime import seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.supernet_training import SupernetSettings, SupernetTrainer
from ftnas.space import Sizes, load_space
from ftnas.training import Step, TrainingSettings, train
from ftnas.training.trainer import _Training

FEATURES = "features.mac_bit_bias:1e-2"
TINY = load_space("tiny")
SHAPE: dict[str, Any] = {"image_shape": (1, 8, 8), "classes": 10}


def training(net: nn.Module, *faults: str, **settings: Any) -> _Training:
    """Return a training whose first step is behind it."""
    chosen = TrainingSettings.model_validate({"epochs": 1, "batch_size": 16, **settings})
    made = _Training(
        net,
        digits().train_images[:64],
        digits().train_labels[:64],
        settings=chosen,
        faults=[parse_fault(fault) for fault in faults],
        key="waiting",
        checkpoint=None,
    )
    net.train()
    with left_on_device():
        made._step(made.images[:16], made.labels[:16], 0)
    return made


def step_waits(made: _Training) -> list[str]:
    x, y = made.images[16:32].clone(), made.labels[16:32].clone()
    return waits_of(lambda: made._step(x, y, 1), made.model, tensors=(x, y))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: (x * 2).nonzero(),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x + 1),
        lambda x: (x + 1).cpu(),
        lambda x: torch.zeros(4).copy_(x),
        lambda x: x.tolist(),
        lambda x: (x + 1).numpy(),
    ],
)
def test_the_watch_notes_what_waits(wait: Callable[[Tensor], object]) -> None:
    x = torch.arange(4.0)
    assert waits_of(lambda: wait(x), tensors=[x])


def test_the_watch_lets_the_host_read_its_own() -> None:
    x = torch.arange(4.0)
    assert waits_of(lambda: (x[torch.randint(4, (2,))], torch.rand(3).tolist(), bool(torch.ones(1))), tensors=[x]) == []


def test_on_the_cpu_ranges_are_read() -> None:
    made = training(robust_net())
    with noting_waits(made.model, on_gpu=False) as waits:
        made._step(made.images[:16], made.labels[:16], 1)
    assert waits


@pytest.mark.parametrize(
    ("faults", "settings"),
    [
        ((), {"objective": "qat"}),
        ((FEATURES,), {}),
        (("features.mac_bit_bias:1e-2:bias=published",), {}),
        (("features.random_value:1e-2", "features.stuck_bit:1e-2"), {}),
        (("weights.stuck_cell:0.05",), {}),
        (("weights.lognormal:0.3", "weights.bit_flip:0.01:duration=transient"), {}),
        (("features.gaussian:0.02",), {}),
        ((FEATURES,), {"objective": "sam"}),
        ((FEATURES,), {"objective": "sam", "relative_rho": 0.1}),
        ((FEATURES,), {"objective": "saq"}),
        ((FEATURES,), {"sparsity": {"l1": 0.01, "hoyer": 0.01}, "lipschitz": {"weight": 0.01}}),
    ],
    ids=str,
)
def test_a_step_waits_for_nothing(faults: tuple[str, ...], settings: dict[str, Any]) -> None:
    assert step_waits(training(robust_net(), *faults, **settings)) == []


@pytest.mark.parametrize("objective", ["randbet", "worst_bits"])
def test_a_gate_is_read_once(objective: str) -> None:
    made = training(robust_net(), "weights.bit_flip:0.01", objective=objective, loss_gate=1e-6)
    assert step_waits(made) == ["__float__", "_local_scalar_dense"]


@pytest.mark.parametrize("policy", ["power_of_two", "max", "learned", "power_of_two_per_channel"])
def test_no_range_is_read(policy: Any) -> None:
    features = Range("max" if policy.endswith("per_channel") else policy)
    choices = (Quantization(weight_range=Range(policy), feature_range=features),)
    net = nn.Sequential(QuantizedConv2d(1, 4, 3, choices=choices), nn.Flatten(), nn.Linear(256, 10))
    assert step_waits(training(net, FEATURES, "weights.bit_flip:0.01")) == []


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_baselines_wait_for_nothing(name: str) -> None:
    net = build_baseline(name, width=0.05, **SHAPE)
    assert step_waits(training(net, FEATURES)) == []


def test_a_found_net_waits_for_nothing(generator: torch.Generator) -> None:
    space = load_space("digits")
    net = CellNetwork(space, Sizes(channels=4, cells=2), genotype=space.sample(generator), **SHAPE)
    assert step_waits(training(net, FEATURES)) == []


def test_batches_and_their_changes_wait_for_nothing() -> None:
    images, labels = digits().train_images[:64].clone(), digits().train_labels[:64].clone()
    augmentation = Augmentation(crop_padding=1, flip=True, cutout=2)
    drawn = batches(images, labels, batch_size=16, augmentation=augmentation, key=("waiting",))
    assert waits_of(lambda: list(drawn), tensors=(images, labels)) == []


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel", "uniform"])
def test_the_supernet_waits_only_for_architecture_weights_that_moved(relaxation: Any) -> None:
    with seeded("waiting"):
        supernet = CellNetwork(TINY, TINY.search, **SHAPE).train()
    settings = SupernetSettings(epochs=1, warm_up=0, batch_size=8, relaxation=relaxation)
    architecture, faults = ArchitectureWeights(TINY), [parse_fault(FEATURES)]
    trainer = SupernetTrainer(supernet, architecture, settings=settings, faults=faults, key="waiting")
    images, labels = digits().train_images[:8].clone(), digits().train_labels[:8].clone()

    def steps() -> None:
        for has_gates, move in ((False, trainer._move_weights), (False, trainer._move_weights),
                                (True, trainer._move_architecture), (False, trainer._move_weights)):  # fmt: skip
            move(trainer._sample(1, 0, key="waiting", has_gates=has_gates), Step(images, labels, 1))

    with left_on_device():
        steps()
    waits = waits_of(steps, supernet, architecture, tensors=(images, labels))
    # Once more for operators and for quantisations: after the step on architecture weights.
    assert waits == (["cpu"] * 2 if relaxation == "gumbel" else [])


@pytest.mark.parametrize("faults", [(), (FEATURES,), ("weights.stuck_cell:0.05",), ("weights.bit_flip:0.01",)], ids=str)
def test_what_stays_on_a_gpu_is_computed_to_the_same_bits(faults: tuple[str, ...]) -> None:
    found = []
    for _ in range(2):
        net = robust_net()
        settings = TrainingSettings(epochs=1, batch_size=32)
        images, labels = digits().train_images[:96], digits().train_labels[:96]
        chosen = [parse_fault(fault) for fault in faults]
        if found:
            with left_on_device():
                train(net, images, labels, settings=settings, faults=chosen, key="bits")
        else:
            train(net, images, labels, settings=settings, faults=chosen, key="bits")
        found.append(state(net))
    assert same_bits(*found)
