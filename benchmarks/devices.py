"""How fast trainings are on a device: samples per second, how busy it is, and the ratio to the plain float step.

    python benchmarks/devices.py [--device cpu|cuda] [--images 128] [--rounds 5] [--compile] [--out FILE.json]

A variant is a net (float, quantised, fault-tolerant), what it is computed in, its layout, and whether it is compiled.
All take turns, once a round; a ratio is the median over rounds of two times of one round. One thread is timed by the
process's CPU seconds, everything else by the clock, a GPU after it has finished its steps.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from steps import CLASSES, draw_batch, float_twin
from timing import Clock, choose_clock, parse_count, print_rows
from torch import Tensor

from ftnas.files import write_json
from ftnas.networks import build_baseline
from ftnas.runtime import choose_device, multiplying_in, place, seeded
from ftnas.training import Step, TrainingSettings, build_objective, sgd, take_step
from ftnas.training.computing import Compile, Precision, check_computing, computed, lay_out

RESULTS = Path(__file__).parent / "results" / "devices"
FAULT = "features.mac_bit_bias:1e-4"
NETS: Mapping[str, Mapping[str, Any]] = {
    "float": {"objective": "qat"},
    "quantised": {"objective": "qat"},
    "fault-tolerant": {"objective": "ftt", "faults": [FAULT]},
}
PLAIN = ("float", "float32", True, "none")


@dataclass(frozen=True)
class Variant:
    """A training step: of which net, in what, in which layout, compiled or not."""

    net: str
    precision: Precision
    channels_last: bool
    compile: Compile

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        return ", ".join([self.net, self.precision, layout, *([self.compile] if self.compile != "none" else [])])


@dataclass(frozen=True)
class Speed:
    """What was measured of a variant; ``busy`` is the share of the device's time, ``None`` where nothing tells it."""

    variant: str
    samples_per_second: float
    ratio_to_float: float
    busy: float | None


def variants(device: torch.device, nets: Sequence[str], *, compiles: bool) -> Iterator[Variant]:
    """Yield what can be computed on ``device`` of ``nets``."""
    precisions: tuple[Precision, ...] = ("float32", "tf32", "bf16") if device.type == "cuda" else ("float32", "bf16")
    ways: tuple[Compile, ...] = ("none",)
    if compiles:
        ways = ("none", "default", "cuda_graphs") if device.type == "cuda" else ("none", "default")
    for net, precision, channels_last, way in itertools.product(nets, precisions, (True, False), ways):
        if way == "none" or channels_last:
            yield Variant(net, precision, channels_last, way)


def step_of(variant: Variant, device: torch.device, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return one training step of ResNet-20; each call meets another chip, where there are faults."""
    settings = TrainingSettings.model_validate(
        {
            "learning_rate": 0.01,
            "precision": variant.precision,
            "channels_last": variant.channels_last,
            "compile": variant.compile,
            **NETS[variant.net],
        }
    )
    with seeded("benchmark"):
        model = build_baseline("resnet20", image_shape=tuple(images.shape[1:]), classes=CLASSES)
    model = place(float_twin(model) if variant.net == "float" else model, device).train()
    check_computing("training", settings, model, device, compile=variant.compile)
    lay_out(model, settings)
    forward = computed(model, variant.precision, device, compile=variant.compile)
    objective, parameters = build_objective(settings, (), study="benchmark"), list(model.parameters())
    optimizer, chips = sgd(parameters, settings), itertools.count()

    def step() -> None:
        with multiplying_in(variant.precision):
            optimizer.zero_grad(set_to_none=True)
            objective.gradient(model, forward, Step(images, labels, next(chips)))
            take_step(optimizer, parameters, clip=settings.gradient_clip)

    return step


@contextmanager
def watching(device: torch.device) -> Iterator[list[float]]:
    """Yield a list that holds, after the block, how busy the device was: shares of its time; empty if unknown."""
    shares: list[float] = []
    wall, used = time.perf_counter(), time.process_time()
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_asking(shares))
        yield shares
    if device.type == "cpu":
        shares.append((time.process_time() - used) / (time.perf_counter() - wall) / torch.get_num_threads())


@contextmanager
def _asking(shares: list[float]) -> Iterator[None]:
    """Ask the GPU's driver ten times a second."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            try:
                shares.append(torch.cuda.utilization() / 100)
            except (ModuleNotFoundError, RuntimeError):  # no pynvml, or no driver that knows
                return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(
    steps: Mapping[Variant, Callable[[], None]], device: torch.device, *, rounds: int, repeats: int, clock: Clock
) -> tuple[dict[Variant, list[float]], dict[Variant, list[float]]]:
    """Return the seconds of a step in every round, and how busy the device was, by variant."""
    seconds: dict[Variant, list[float]] = {variant: [] for variant in steps}
    busy: dict[Variant, list[float]] = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant, step in steps.items():
            step()
            finish(device)
            with watching(device) as shares:
                began = clock()
                for _ in range(repeats):
                    step()
                finish(device)
                seconds[variant].append((clock() - began) / repeats)
            busy[variant] += shares
    return seconds, busy


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speeds(seconds: Mapping[Variant, list[float]], busy: Mapping[Variant, list[float]], images: int) -> list[Speed]:
    """Return what was measured, in the order of the variants."""
    plain = seconds[Variant(*PLAIN)]
    return [
        Speed(
            str(variant),
            images / statistics.median(times),
            statistics.median(ours / theirs for ours, theirs in zip(times, plain, strict=True)),
            statistics.fmean(busy[variant]) if busy[variant] else None,
        )
        for variant, times in seconds.items()
    ]


def name_of(device: torch.device) -> str:
    """Return what the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, CPU"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Time training steps on a device.")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--images", type=parse_count, default=128, help="of a step (default: 128)")
    parser.add_argument("--side", type=parse_count, default=32, help="of an image, in pixels (default: 32)")
    parser.add_argument("--rounds", type=parse_count, default=5, help="default: 5")
    parser.add_argument("--repeats", type=parse_count, default=3, help="steps timed in a round (default: 3)")
    parser.add_argument("--threads", type=parse_count, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--nets", nargs="+", choices=tuple(NETS), default=list(NETS), help="default: all")
    parser.add_argument("--compile", action="store_true", help="compiled variants, too; each takes minutes to begin")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/devices/DEVICE.json")
    options = parser.parse_args()
    device = choose_device(options.device)
    clock, unit = choose_clock(options.threads)
    clock, unit = (time.perf_counter, "wall seconds") if device.type == "cuda" else (clock, unit)
    nets = ["float", *(net for net in options.nets if net != "float")]
    images, labels = (part.to(device) for part in draw_batch(options.images, (3, options.side, options.side)))
    steps = {
        variant: step_of(variant, device, images, labels)
        for variant in variants(device, nets, compiles=options.compile)
    }
    timed = measure(steps, device, rounds=options.rounds, repeats=options.repeats, clock=clock)
    found = speeds(*timed, options.images)
    rows = [
        (speed.variant, f"{speed.samples_per_second:,.0f}", f"{speed.ratio_to_float:.2f}",
         "" if speed.busy is None else f"{100 * speed.busy:.0f} %")
        for speed in found
    ]  # fmt: skip
    caption = f"ResNet-20, {options.images} images 3x{options.side}x{options.side}, {name_of(device)}, {unit}"
    print_rows(("training step", "samples/s", "time / float's", "busy"), rows, caption)
    given = {key: value for key, value in vars(options).items() if key != "out"}
    content = {
        "device": name_of(device), "clock": unit, "torch": torch.__version__, "cores": os.cpu_count(), "options": given,
        "speeds": [asdict(speed) for speed in found],
    }  # fmt: skip
    write_json(options.out or RESULTS / f"{device.type}.json", content)


if __name__ == "__main__":
    main()
