"""What a training step and a score cost, as ratios measured in one run.

    python benchmarks/steps.py [--repeats N] [--threads N]

How times are taken is said in ``timing``.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timing import Goal, Steps, choose_clock, measure, parse_count, print_table
from torch import Tensor, nn

from ftnas.faults import parse_fault
from ftnas.networks import CellNetwork, Mixture, build_baseline
from ftnas.quantization import QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.runtime import keyed_generator, place, seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.scoring import Scorer
from ftnas.space import Genotype, load_space
from ftnas.training import (
    FaultTolerantLoss,
    Step,
    TrainingSettings,
    bound_weights,
    build_objective,
    descend,
    sgd,
    take_step,
)

ImageShape = tuple[int, int, int]

CLASSES = 10
CPU = torch.device("cpu")
SETTINGS = TrainingSettings(learning_rate=0.01)
PATHS = 4
CANDIDATES = 4
SHAPES: Mapping[str, ImageShape] = {"digits": (1, 8, 8), "digits_weights": (1, 8, 8), "cifar10_small": (3, 32, 32)}
FEATURE_FAULT, WEIGHT_FAULT = "features.mac_bit_bias:1e-4", "weights.stuck_cell:0.08"
BIT_ERRORS = "weights.bit_flip:0.01"


class FloatSum(nn.Module):
    """The sum of several tensors."""

    def forward(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the sum of ``terms``."""
        return sum(terms[1:], start=terms[0])


def float_twin(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` of torch's own layers: the same net without quantisation."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, layer in list(parent.named_children()):
            setattr(parent, name, _float_layer(layer))
    return twin


def _float_layer(layer: nn.Module) -> nn.Module:
    if isinstance(layer, QuantizedSum):
        return FloatSum()
    if isinstance(layer, QuantizedLinear):
        return nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    if not isinstance(layer, QuantizedConv2d):
        return layer
    channels_out, _, kernel, _ = layer.weight.shape
    channels_in = layer.weight.shape[1] * layer.groups
    convolution = nn.Conv2d(
        channels_in, channels_out, kernel, stride=layer.stride, padding=layer.padding, groups=layer.groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))


def draw_batch(size: int, shape: ImageShape) -> tuple[Tensor, Tensor]:
    """Draw images ``[size, *shape]`` and labels ``[size]``."""
    rng = keyed_generator("benchmark", size, *shape)
    return torch.randn(size, *shape, generator=rng), torch.randint(CLASSES, (size,), generator=rng)


def training_steps(model: nn.Module, images: Tensor, labels: Tensor, **robustness: Any) -> Steps:
    """Return one step of the trainer; every call meets another chip, where there are faults."""
    settings = SETTINGS.model_validate(SETTINGS.model_dump() | robustness)
    objective = build_objective(settings, (), study="benchmark")
    parameters, chips = list(model.parameters()), itertools.count()
    optimizer, largest = sgd(parameters, settings), settings.largest_weight(())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        objective.gradient(model, model, Step(images, labels, next(chips)))
        take_step(optimizer, parameters, clip=settings.gradient_clip)
        bound_weights(model, largest)

    return [step]


def resnet_steps() -> dict[str, Steps]:
    """Return the steps of ResNet-20 on 128 images 3x32x32: float, quantised, and by each objective."""
    shape = (3, 32, 32)
    images, labels = draw_batch(128, shape)
    quantised = place(build_baseline("resnet20", image_shape=shape, classes=CLASSES), CPU)
    ways: Mapping[str, Mapping[str, Any]] = {
        "quantised": {},
        "feature faults": {"faults": [FEATURE_FAULT]},
        "weight faults": {"faults": [WEIGHT_FAULT]},
        "sam": {"objective": "sam", "rho": 0.1, "clip": "none"},
        "saq": {"objective": "saq", "rho": 0.1, "clip": "none"},
        "randbet": {"objective": "randbet", "faults": [BIT_ERRORS], "clip": "none", "loss_gate": 1e9},
        "clipped": {"clip": 0.2},
        "sparse": {"sparsity": {"l1": 1e-3}},
        "hoyer": {"sparsity": {"hoyer": 1e-5}},
    }
    steps = {name: training_steps(copy.deepcopy(quantised), images, labels, **way) for name, way in ways.items()}
    return {"float": training_steps(place(float_twin(quantised), CPU), images, labels)} | steps


def path_steps(name: str) -> dict[str, Steps]:
    """Return the weight steps of four fair paths on 64 images: by the supernet, which draws them, and by derived nets.

    Without a faulty pass, which would make the supernet's own part of the time smaller.
    """
    images, labels = draw_batch(64, SHAPES[name])
    supernet, architecture = build_network(name), ArchitectureWeights(load_space(name))
    loss, parameters = FaultTolerantLoss((), share=0.0, study="benchmark"), list(supernet.parameters())
    optimizer = sgd(parameters, SETTINGS)

    def step(number: int) -> None:
        forward = partial(supernet, plan=architecture.fair_path(number, key="benchmark").plan)
        losses = loss(supernet, forward, Step(images, labels, number))
        descend(optimizer, losses.total, parameters, clip=SETTINGS.gradient_clip)

    paths = [architecture.fair_path(number, key="benchmark").plan for number in range(PATHS)]
    derived = [training_steps(build_network(name, path), images, labels) for path in paths]
    return {
        f"{name} supernet": [partial(step, number) for number in range(PATHS)],
        f"{name} derived": [*itertools.chain(*derived)],
    }


def scoring_steps(name: str, fault: str) -> dict[str, Steps]:
    """Return the scoring of four random candidates on 300 images and 8 chips, as the search does it."""
    space, shape = load_space(name), SHAPES[name]
    (images, labels), (calibration, _) = draw_batch(300, shape), draw_batch(256, shape)
    faults = [parse_fault(fault)]
    scorer = Scorer(build_network(name), images, labels, calibration, faults=faults, chips=8, study="benchmark")
    candidates = [space.canonical(space.sample(keyed_generator("candidate", i))) for i in range(CANDIDATES)]
    return {f"{name} scores": [partial(scorer, candidate) for candidate in candidates]}


def build_network(name: str, path: Genotype | Mapping[str, Mixture] | None = None) -> CellNetwork:
    """Return the supernet of the space ``name``, or the net derived from it by ``path``, placed as a run places it."""
    space, genotype = load_space(name), path if isinstance(path, Genotype) else None
    shape = SHAPES[name]
    net = CellNetwork(space, space.search, image_shape=shape, classes=CLASSES, genotype=genotype, norms="search")
    return place(net, CPU)


GOALS = (
    Goal("quantised / float ResNet-20", "quantised", 1.25, "float"),
    Goal(f"fault-tolerant / quantised, {FEATURE_FAULT}", "feature faults", 2.2, "quantised"),
    Goal(f"fault-tolerant / quantised, {WEIGHT_FAULT}", "weight faults", 2.2, "quantised"),
    Goal("SAM / quantised", "sam", 2.3, "quantised"),
    Goal("SAQ / quantised", "saq", 2.3, "quantised"),
    Goal(f"RandBET / quantised, {BIT_ERRORS}", "randbet", 2.2, "quantised"),
    Goal("clipped weights / quantised", "clipped", 1.05, "quantised"),
    Goal("L1 of activations / quantised", "sparse", 1.05, "quantised"),
    Goal("Hoyer term of activations / quantised", "hoyer", 1.05, "quantised"),
    Goal("path of the supernet / derived net, digits", "digits supernet", 1.4, "digits derived"),
    Goal("path of the supernet / derived net, cifar10_small", "cifar10_small supernet", 1.4, "cifar10_small derived"),
    Goal("score of a candidate, digits, seconds", "digits scores", 1.0),
    Goal("score of a candidate, digits_weights, seconds", "digits_weights scores", 1.0),
)


def build_steps() -> dict[str, Steps]:
    """Return everything to be timed, by name."""
    with seeded("benchmark"):
        return {
            **resnet_steps(),
            **path_steps("digits"),
            **path_steps("cifar10_small"),
            **scoring_steps("digits", "features.mac_bit_bias:3e-3"),
            **scoring_steps("digits_weights", "weights.stuck_cell:0.05"),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time training steps and scores against their goals.")
    parser.add_argument("--repeats", type=parse_count, default=10, help="rounds (default: 10)")
    parser.add_argument("--threads", type=parse_count, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args()
    clock, unit = choose_clock(options.threads)
    seconds = measure(build_steps(), rounds=options.repeats, clock=clock)
    print_table(GOALS, seconds, f"{unit}, rounds: {options.repeats}")


if __name__ == "__main__":
    main()
