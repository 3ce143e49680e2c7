"""What the defences of layered spiking nets are worth on the digits: mean accuracy over seeds and chips.

    python benchmarks/spiking_defences.py [--seeds N] [--chips N] [--epochs N] [--only PART] [--json FILE]

Each net is trained anew for each seed; all defences of one seed meet the same faulty chips. Intervals are Student's t
over the means of seeds. Nets: 64-64-10 with 8 steps and weight registers that reach to 2; for resets 64-64-10 that
empties its membranes; for retraining 64-48-48-10.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from timing import parse_count, print_rows

from ftnas.campaign import CONFIDENCE, accuracy
from ftnas.campaign.intervals import student_interval
from ftnas.data import Dataset, load_data
from ftnas.files import write_json
from ftnas.runtime import seeded, use_threads
from ftnas.spiking.dense.defences import bypassed, retrained, with_bounded_weights, with_reset_guard
from ftnas.spiking.dense.fault_map import FaultMap, draw_map, inject_map
from ftnas.spiking.dense.hardware_faults import parse_spiking_fault
from ftnas.spiking.dense.mapping import mapped_around
from ftnas.spiking.dense.measurement import spiking_chip_accuracies
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.training import TrainingSettings, train

HEADINGS = ("fault", "defence", "accuracy (%)", "95 % interval", "seeds x chips")
FLIPS = ("weights.bit_flip:0.005", "weights.bit_flip:0.01", "weights.bit_flip:0.02")
STUCK = ("neurons.stuck:0.05", "neurons.stuck:0.1", "neurons.unreset:0.2")
PARTS = ("bounding", "guard", "mapping", "retraining")
MAPPED = ("synapses.flipped:0.05", "synapses.dead:0.3", "neurons.dead:0.2", "neurons.saturated:0.1")
RETRAINED = "synapses.stuck:0.7"


@dataclass(frozen=True)
class Row:
    """Accuracies of one defence under one fault, a mean over chips for each seed."""

    fault: str
    defence: str
    chips: int
    seeds: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        found = student_interval(self.seeds, CONFIDENCE)
        interval = f"{100 * found.low:.1f} .. {100 * found.high:.1f}"
        return self.fault, self.defence, f"{100 * fmean(self.seeds):.1f}", interval, f"{len(self.seeds)} x {self.chips}"


def settings(epochs: int, learning_rate: float = 0.02) -> TrainingSettings:
    """Return a plain training."""
    return TrainingSettings(epochs=epochs, learning_rate=learning_rate, objective="qat")


def trained(data: Dataset, seed: int, epochs: int, **keys: Any) -> SpikingNet:
    """Return a net trained on ``data``."""
    with seeded("initialisation", seed):
        net = SpikingNet(SpikingSpec.model_validate(keys), data.image_shape, data.classes)
    train(net, data.train_images, data.train_labels, settings=settings(epochs), faults=(), key=f"training {seed}")
    return net.eval()


def attacked(data: Dataset, nets: Sequence[SpikingNet], fault: str, chips: int) -> tuple[float, ...]:
    """Return the mean accuracy over chips of each net, those of one seed on the same chips."""
    return tuple(
        fmean(
            spiking_chip_accuracies(
                net, data.test_images, data.test_labels, faults=[fault], chips=range(chips), study=f"seed {seed}"
            )
        )
        for seed, net in enumerate(nets)
    )


def compared(
    data: Dataset,
    nets: Sequence[SpikingNet],
    faults: Sequence[str],
    defences: dict[str, Callable[[SpikingNet], SpikingNet]],
    chips: int,
) -> Iterator[Row]:
    """Yield a row for each fault and defence."""
    for fault in faults:
        for name, defend in defences.items():
            yield Row(fault, name, chips, attacked(data, [defend(net) for net in nets], fault, chips))


def on_chip(data: Dataset, net: SpikingNet, fault_map: FaultMap) -> float:
    """Return the accuracy of ``net`` on the chip of ``fault_map``."""
    with inject_map(net, fault_map):
        return accuracy(net, data.test_images, data.test_labels)


def mapped(data: Dataset, nets: Sequence[SpikingNet], chips: int) -> Iterator[Row]:
    """Yield what fault-aware mapping changes."""
    for text in MAPPED:
        before, after = [], []
        for seed, net in enumerate(nets):
            maps = [draw_map(net, [parse_spiking_fault(text)], chip=c, study=f"seed {seed}") for c in range(chips)]
            before.append(fmean(on_chip(data, net, found) for found in maps))
            moved = [mapped_around(net, found, data.train_images[:256]) for found in maps]
            after.append(fmean(on_chip(data, one, found) for one, found in zip(moved, maps, strict=True)))
        yield Row(text, "none", chips, tuple(before))
        yield Row(text, "mapping", chips, tuple(after))


def retrainings(data: Dataset, nets: Sequence[SpikingNet]) -> Iterator[Row]:
    """Yield what retraining with and without thresholds recovers, each on one chip a seed."""
    study, fault = "retraining", parse_spiking_fault(RETRAINED)
    maps = [bypassed(draw_map(net, [fault], chip=seed, study=study)) for seed, net in enumerate(nets)]
    bypass = tuple(on_chip(data, net, found) for net, found in zip(nets, maps, strict=True))
    yield Row(RETRAINED, "bypass only", 1, bypass)
    for epochs in (1, 2, 4):
        for learns, words in ((False, "weights"), (True, "weights and thresholds")):
            found = []
            for seed, (net, broken) in enumerate(zip(nets, maps, strict=True)):
                again, _ = retrained(
                    net,
                    broken,
                    data.train_images,
                    data.train_labels,
                    settings=settings(epochs, 0.01),
                    key=f"{study} {seed}",
                    learn_threshold=learns,
                )
                found.append(on_chip(data, again, broken))
            yield Row(RETRAINED, f"retrained, epochs {epochs}: {words}", 1, tuple(found))


def gains(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return what learned thresholds add to retraining, seed by seed: for each number of epochs, and their mean."""
    plain, learned = (
        [row for row in rows if row.defence.endswith(f": {words}")] for words in ("weights", "weights and thresholds")
    )
    apart = [
        [b - a for a, b in zip(one.seeds, other.seeds, strict=True)] for one, other in zip(plain, learned, strict=True)
    ]
    named = [(row.defence.partition(":")[0], gain) for row, gain in zip(plain, apart, strict=True)]
    return [_gain(name, gain) for name, gain in (*named, ("mean", [fmean(each) for each in zip(*apart, strict=True)]))]


def _gain(name: str, gain: Sequence[float]) -> tuple[str, ...]:
    found = student_interval(gain, CONFIDENCE, bounds=(-1.0, 1.0))
    ahead = sum(value > 0 for value in gain)
    interval = f"{100 * found.low:+.1f} .. {100 * found.high:+.1f}"
    return name, f"{100 * fmean(gain):+.1f}", interval, f"{ahead} of {len(gain)}"


def measured(data: Dataset, *, seeds: int, chips: int, epochs: int, parts: Sequence[str] = PARTS) -> list[Row]:
    """Return the rows of ``parts``."""

    def nets(**keys: Any) -> list[SpikingNet]:
        return [trained(data, seed, epochs, **keys) for seed in range(seeds)]

    wide = nets(weight_range="fixed(2)") if {"bounding", "mapping"} & {*parts} else []
    bounding = {
        "none": lambda net: net,
        "clip": lambda net: with_bounded_weights(net, "clip"),
        "zero": lambda net: with_bounded_weights(net, "zero"),
        "zero, a bound for each neuron": lambda net: with_bounded_weights(net, "zero", bound_of="neuron"),
    }
    guard = {"none": lambda net: net, "reset guard": with_reset_guard}
    rows: dict[str, Callable[[], Iterator[Row]]] = {
        "bounding": lambda: compared(data, wide, FLIPS, bounding, chips),
        "guard": lambda: compared(data, nets(reset="zero"), STUCK, guard, chips),
        "mapping": lambda: mapped(data, wide, chips),
        "retraining": lambda: retrainings(data, nets(widths=(48, 48))),
    }
    return [row for part in PARTS if part in parts for row in rows[part]()]


def main() -> None:
    """Measure, print, and write if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_count, default=5)
    parser.add_argument("--chips", type=parse_count, default=10)
    parser.add_argument("--epochs", type=parse_count, default=12)
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    use_threads(1)
    parts = [given.only] if given.only else PARTS
    rows = measured(load_data("digits"), seeds=given.seeds, chips=given.chips, epochs=given.epochs, parts=parts)
    print_rows(HEADINGS, [row.cells() for row in rows], "defences of layered spiking nets, digits")
    if "retraining" in parts:
        headings = ("retrained", "gain of thresholds (points)", "95 % interval", "seeds with a gain")
        print_rows(headings, gains(rows), f"{RETRAINED}: what learned thresholds add, seed by seed")
    if given.json:
        about = {"seeds": given.seeds, "chips": given.chips, "epochs": given.epochs}
        write_json(given.json, {**about, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
