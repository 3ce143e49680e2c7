"""What a training step and a score cost, as ratios measured in one run.

    python benchmarks/steps.py [--repeats N] [--threads N]

All variants run in turn, once a round, and the fastest round of each counts. One thread is timed by the process's CPU
seconds, which other jobs on the machine disturb least; several threads by the clock, as waiting ones burn CPU time.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ftnas.faults import Fault, parse_fault
from ftnas.networks import CellNetwork, build_baseline
from ftnas.quantization import QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.runtime import keyed_generator, place, seeded, use_threads
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.scoring import Scorer
from ftnas.space import SearchSpace, load_space
from ftnas.training import FaultTolerantLoss, TrainingSettings, descend, sgd

Step = Callable[[], object]
ImageShape = tuple[int, int, int]

CLASSES = 10
CPU = torch.device("cpu")
SETTINGS = TrainingSettings(learning_rate=0.01)
PATHS = 4
CANDIDATES = 4
SPACES: Mapping[str, ImageShape] = {"digits": (1, 8, 8), "cifar10_small": (3, 32, 32)}
FEATURE_FAULT, WEIGHT_FAULT = "features.mac_bit_bias:1e-4", "weights.stuck_cell:0.08"


@dataclass(frozen=True)
class Goal:
    """At most ``limit``: the time of ``variant`` over that of ``reference``, or its seconds a piece."""

    title: str
    variant: str
    limit: float
    reference: str | None = None
    pieces: int = 1

    def measured(self, seconds: Mapping[str, float]) -> float:
        """Return the number to be compared with the limit."""
        return seconds[self.variant] / (seconds[self.reference] if self.reference else self.pieces)


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


def training_step(model: nn.Module, images: Tensor, labels: Tensor, *, faults: Sequence[Fault] = ()) -> Step:
    """Return one step of the trainer; every call meets another chip, where there are ``faults``."""
    loss = FaultTolerantLoss(faults, share=0.5, study="benchmark")
    optimizer, parameters, chips = sgd(list(model.parameters()), SETTINGS), list(model.parameters()), itertools.count()

    def step() -> None:
        losses = loss(model, model, images, labels, chip=next(chips))
        descend(optimizer, losses.total, parameters, clip=SETTINGS.gradient_clip)

    return step


def resnet_steps() -> dict[str, Step]:
    """Return the steps of ResNet-20 on 128 images 3x32x32: float, quantised, fault-tolerant."""
    shape = (3, 32, 32)
    images, labels = draw_batch(128, shape)
    quantised = build_baseline("resnet20", image_shape=shape, classes=CLASSES)

    def step(model: nn.Module, *faults: str) -> Step:
        return training_step(place(model, CPU), images, labels, faults=[parse_fault(fault) for fault in faults])

    return {
        "float": step(float_twin(quantised)),
        "quantised": step(quantised),
        "feature faults": step(copy.deepcopy(quantised), FEATURE_FAULT),
        "weight faults": step(copy.deepcopy(quantised), WEIGHT_FAULT),
    }


def path_steps(name: str) -> dict[str, Step]:
    """Return the weight steps of four fair paths on 64 images: by the supernet, which draws them, and by derived nets.

    Without a faulty pass, as that makes the supernet's own part of the time smaller.
    """
    space, shape = load_space(name), SPACES[name]
    images, labels = draw_batch(64, shape)
    supernet, architecture = _network(space), ArchitectureWeights(space)
    loss, parameters = FaultTolerantLoss((), share=0.0, study="benchmark"), list(supernet.parameters())
    optimizer = sgd(parameters, SETTINGS)

    def supernet_steps() -> None:
        for number in range(PATHS):
            plan = architecture.fair_path(number, key="benchmark").plan
            losses = loss(supernet, lambda x, plan=plan: supernet(x, plan), images, labels, chip=number)
            descend(optimizer, losses.total, parameters, clip=SETTINGS.gradient_clip)

    plans = [architecture.fair_path(number, key="benchmark").plan for number in range(PATHS)]
    derived = [training_step(_network(space, plan), images, labels) for plan in plans]
    return {f"{name} supernet": supernet_steps, f"{name} derived": lambda: [step() for step in derived]}


def scoring_step(name: str, fault: str) -> dict[str, Step]:
    """Return the scoring of some random candidates on 300 images and 8 chips, as the search does it."""
    space, shape = load_space(name), SPACES["digits"]
    images, labels = draw_batch(300, shape)
    calibration, _ = draw_batch(256, shape)
    scorer = Scorer(
        _network(space), images, labels, calibration, faults=[parse_fault(fault)], chips=8, study="benchmark"
    )
    genotypes = [space.canonical(space.sample(keyed_generator("candidate", i))) for i in range(CANDIDATES)]
    return {f"{name} scores": lambda: [scorer(genotype) for genotype in genotypes]}


def _network(space: SearchSpace, genotype: object = None) -> CellNetwork:
    """Return the supernet of ``space``, or the net derived from it, placed as a run places it."""
    shape = SPACES.get(space.name, SPACES["digits"])
    net = CellNetwork(
        space, space.search, image_shape=shape, classes=CLASSES, genotype=genotype, norms="search"
    )
    return place(net, CPU)


GOALS = (
    Goal("quantised step / float step, ResNet-20", "quantised", 1.25, "float"),
    Goal(f"fault-tolerant step / quantised step, {FEATURE_FAULT}", "feature faults", 2.2, "quantised"),
    Goal(f"fault-tolerant step / quantised step, {WEIGHT_FAULT}", "weight faults", 2.2, "quantised"),
    Goal("supernet step / derived net's step, digits", "digits supernet", 1.4, "digits derived"),
    Goal(
        "supernet step / derived net's step, cifar10_small", "cifar10_small supernet", 1.4, "cifar10_small derived"
    ),
    Goal("score of a digits candidate, seconds", "digits scores", 1.0, pieces=CANDIDATES),
    Goal("score of a digits_weights candidate, seconds", "digits_weights scores", 1.0, pieces=CANDIDATES),
)


def build_steps() -> dict[str, Step]:
    """Return everything to be timed, by name."""
    with seeded("benchmark"):
        return {
            **resnet_steps(),
            **path_steps("digits"),
            **path_steps("cifar10_small"),
            **scoring_step("digits", "features.mac_bit_bias:3e-3"),
            **scoring_step("digits_weights", "weights.stuck_cell:0.05"),
        }


def fastest(steps: Mapping[str, Step], *, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the shortest time of each step in ``repeats`` rounds, after one that only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            began = clock()
            step()
            seconds[name].append(clock() - began)
    return {name: min(times[1:]) for name, times in seconds.items()}


def print_table(seconds: Mapping[str, float], caption: str) -> None:
    """Print each goal beside what was measured."""
    table = Table(caption=caption)
    for heading in ("what", "measured", "goal", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for goal in GOALS:
        measured = goal.measured(seconds)
        verdict = "met" if measured <= goal.limit else "missed"
        table.add_row(goal.title, f"{measured:.2f}", f"{goal.limit:g}", verdict)
    Console(width=120).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time training steps and scores against their goals.")
    parser.add_argument("--repeats", type=int, default=10, help="rounds; the fastest counts (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args()
    use_threads(options.threads)
    clock, unit = (time.process_time, "CPU seconds") if options.threads == 1 else (time.perf_counter, "wall seconds")
    seconds = fastest(build_steps(), repeats=options.repeats, clock=clock)
    print_table(seconds, f"{unit}, threads: {torch.get_num_threads()}, fastest of {options.repeats} rounds")


if __name__ == "__main__":
    main()
