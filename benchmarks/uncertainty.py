"""Whether a campaign's uncertainty is what it says, measured where the truth is known.

    python benchmarks/uncertainty.py [--cache FOLDER] [--images N] [--campaigns N] [--chips N] [--seed N] [--only NET]

8-bit nets for the 8x8 digits, two convolutions and a linear layer, are injected with each of their 30,272 single-bit
weight faults, over all test images asked for. Campaigns that draw some of these faults are then simulated, thousands
of them: how often does their 95 % interval hold the truth, and how many faults do they need? Comparisons of two rates
and of two nets are campaigns over chips.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timing import parse_count, print_rows, verdict
from torch import Tensor, nn

from ftnas import campaign
from ftnas.campaign.population import By
from ftnas.campaign.samples import LEAST_AFTER_PILOT, Allocation, by_bits, pilot_size
from ftnas.campaign.subject import model_hash
from ftnas.data import load_data
from ftnas.errors import CampaignError
from ftnas.faults import parse_fault, quantize
from ftnas.quantization import QuantizedConv2d, QuantizedLinear
from ftnas.runtime import place, seeded
from ftnas.training import TrainingSettings, train

CLASSES = 10
SETTINGS = TrainingSettings(epochs=15, learning_rate=0.05)
TRAINING_FAULT = "weights.bit_flip:3e-3"
CONFIDENCE = 0.95
CRITICAL = 0.01
RATES = (1e-3, 1e-2, 1.5e-2, 2e-2)
PAIRS = ((1, 2, 0.5), (1, 3, 0.5), (0, 1, None))  # of rates that are compared, and the goal
RATES_OF_NETS = (0, 1)  # at which nets are compared

HEADINGS = ("what", "measured", "goal", "")
CPU = torch.device("cpu")

Reals = NDArray[np.float64]
Data = tuple[Tensor, Tensor]


class DigitsNet(nn.Module):
    """Two convolutions and a linear layer, 3,784 weights: ``[N, 1, 8, 8] -> [N, 10]``."""

    def __init__(self, *, quantised: bool) -> None:
        super().__init__()
        self.first: nn.Module = QuantizedConv2d(1, 8, 3) if quantised else nn.Conv2d(1, 8, 3, padding=1)
        self.second: nn.Module = QuantizedConv2d(8, 16, 3) if quantised else nn.Conv2d(8, 16, 3, padding=1)
        self.classifier = (QuantizedLinear if quantised else nn.Linear)(16 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        y = F.max_pool2d(F.relu(self.second(F.relu(self.first(x)))), 2)
        logits: Tensor = self.classifier(y.flatten(1))
        return logits


def converted(data: Data, seed: int = 0) -> nn.Module:
    """Return a float net, trained on ``data`` and then quantised as a user's own would be."""
    return place(quantize(trained(data, seed, quantised=False), data[0]), CPU)


def trained(
    data: Data,
    seed: int = 0,
    *,
    quantised: bool = True,
    faults: Sequence[str] = (),
    settings: TrainingSettings = SETTINGS,
) -> nn.Module:
    """Return a net trained on ``data``, on faulty chips where there are ``faults``; each seed gives another."""
    key = f"digits net {seed}" if seed else "digits net"
    with seeded(key):
        net = place(DigitsNet(quantised=quantised), CPU)
    train(net, *data, settings=settings, faults=[parse_fault(fault) for fault in faults], key=key)
    return net.eval()


# What is injected with every fault. The second has batch norm and power-of-two ranges, as those that a search trains.
NETS: Mapping[str, Callable[[Data, int], nn.Module]] = {"converted": converted, "trained": trained}


@dataclass(frozen=True, eq=False)
class Truth:
    """What every fault of a population does.

    Attributes:
        population: of single faults.
        shares: share of the images whose answer each fault changes ``[faults]``.
    """

    population: campaign.Population
    shares: Reals

    @property
    def mean(self) -> float:
        """The share of changed answers over all faults and images."""
        return float(self.shares.mean())

    @property
    def is_critical(self) -> NDArray[np.bool_]:
        """Which faults change at least ``CRITICAL`` of the images ``[faults]``."""
        return self.shares >= CRITICAL * (1 - 1e-12)


def inject_everything(net: nn.Module, data: Data, cache: Path | None) -> Truth:
    """Inject every fault, or read what ``cache`` has of this net and as many images.

    Raises:
        CampaignError: no fault changes any answer.
    """
    population = campaign.population_of(net)
    path = None if cache is None else cache / f"changed-{model_hash(net)}-{len(data[0])}.npy"
    if path is not None and path.exists():
        return Truth(population, np.load(path))
    result = campaign.run_single(net, data, exhaustive=True, batch_size=len(data[0]))
    counted = [campaign.Outcomes(**unit["images"]) for unit in result.units]
    shares = np.array([images.changed / images.images for images in counted])
    if not shares.any():
        raise CampaignError(f"images: {len(data[0])}; no fault changes the answer to one of them, take more")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, shares)
    return Truth(population, shares)


@dataclass(frozen=True)
class Row:
    """One line of the table: what, measured, and what it is to reach, if anything."""

    title: str
    measured: float
    limit: float | None = None
    at_least: bool = False

    def texts(self) -> tuple[str, ...]:
        """Return the line."""
        return self.title, f"{self.measured:.3g}", *verdict(self.measured, self.limit, at_least=self.at_least)


def truth_rows(truth: Truth) -> list[Row]:
    """Return what the whole population does."""
    return [
        Row("truth: share of (fault, image) pairs whose answer changes", truth.mean),
        Row("truth: share of faults that change no answer", float((truth.shares == 0).mean())),
        Row(f"truth: share of faults that change {CRITICAL:.0%} of the answers", float(truth.is_critical.mean())),
    ]


def coverage_rows(truth: Truth, campaigns: int) -> list[Row]:
    """Return how often intervals of campaigns of different sizes hold the truth."""
    rows = []
    critical, size = float(truth.is_critical.mean()), truth.population.size
    for n, goal in ((50, None), (200, 0.90), (1000, 0.93)):
        samples = list(draw_samples(truth, n, campaigns))
        of_mean = [campaign.fault_interval(truth.shares[s], CONFIDENCE, population=size) for s in samples]
        by_t = [campaign.cluster_interval(truth.shares[s], CONFIDENCE, population=size) for s in samples]
        events = [int(truth.is_critical[s].sum()) for s in samples]
        of_share = [campaign.wilson(event, n, CONFIDENCE, population=size) for event in events]
        what = f"coverage, {n:,} faults: share of"
        rows.append(Row(f"{what} changed answers", holds(of_mean, truth.mean), goal, True))
        rows.append(Row(f"{what} changed answers, by t alone", holds(by_t, truth.mean)))
        rows.append(Row(f"median width, {n:,} faults, over that by t alone", width(of_mean) / width(by_t)))
        rows.append(Row(f"{what} critical faults (Wilson)", holds(of_share, critical), goal, True))
    return rows


def draw_samples(truth: Truth, n: int, campaigns: int) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers ``[n]`` of the faults that each of ``campaigns`` campaigns draws."""
    (everything,) = truth.population.strata("network")
    for seed in range(campaigns):
        yield truth.population.draw(everything, n, np.random.default_rng((n, seed)))


def holds(intervals: Sequence[campaign.Interval], truth: float) -> float:
    """Return the share of ``intervals`` that hold ``truth``."""
    return sum(interval.low <= truth <= interval.high for interval in intervals) / len(intervals)


def width(intervals: Sequence[campaign.Interval]) -> float:
    """Return the median width of ``intervals``."""
    return float(np.median([interval.high - interval.low for interval in intervals]))


def allocation_rows(truth: Truth, campaigns: int) -> list[Row]:
    """Return how many of simple random sampling's faults strata need for the same variance, pilot counted in."""
    rows = []
    ways: tuple[tuple[By, Allocation], ...] = tuple(itertools.product(("bit", "layer_bit"), ("bits", "neyman")))
    for (by, allocation), (n, least) in itertools.product(ways, ((200, 0.90), (1000, 0.93))):
        strata = [list(stratified(truth, by, allocation, n, seed)) for seed in range(campaigns)]
        pilot = [pilot_size(n, len(strata[0]))] * len(strata[0]) if allocation == "neyman" else []
        needed = share_needed(truth, [campaign.stratified_mean(parts, pilot=pilot) for parts in strata], n)
        intervals = [campaign.stratified_interval(parts, CONFIDENCE, pilot=pilot) for parts in strata]
        by_default = allocation == "bits"
        what = f"{n:,} faults by {by}, allocation {allocation}"
        rows.append(Row(f"{what}: needed, of random ones", needed, 0.6 if by_default else None))
        rows.append(Row(f"{what}: coverage", holds(intervals, truth.mean), least if by_default else None, True))
    return rows


def stratified(truth: Truth, by: By, allocation: Allocation, n: int, seed: int) -> Iterator[tuple[int, Reals]]:
    """Yield size and drawn shares of each stratum in one campaign of ``n`` faults, allocated as ``run_single`` does."""
    strata = truth.population.strata(by)

    def draw(stratum: int, count: int) -> Reals:
        generator = np.random.default_rng((seed, stratum))  # the first of more are the same
        return truth.shares[truth.population.draw(strata[stratum], count, generator)]

    sizes = [stratum.size for stratum in strata]
    if allocation == "bits":
        counts = by_bits(strata, n)
    else:
        pilot = pilot_size(n, len(strata))
        deviations = campaign.pilot_deviations([draw(index, pilot) for index in range(len(strata))])
        counts = campaign.neyman(sizes, deviations, n, floor=pilot + LEAST_AFTER_PILOT)
    for index, count in enumerate(counts):
        yield sizes[index], draw(index, count)


def share_needed(truth: Truth, estimates: Sequence[float], n: int) -> float:
    """Return ``n`` over the size of the random sample, drawn without replacement, whose mean varies as much."""
    variance = float(np.mean((np.array(estimates) - truth.mean) ** 2))
    # variance = S^2 / m - S^2 / N, solved for m
    return n * (variance / float(truth.shares.var(ddof=1)) + 1 / truth.population.size)


def rate_rows(found: Reals) -> list[Row]:
    """Return how much less the difference of two rates varies on the same chips than on chips of their own.

    Args:
        found: accuracy of one net at each rate on each chip ``[rates, chips]``.
    """
    rows = [Row(f"accuracy at {rate:g}", float(found[index].mean())) for index, rate in enumerate(RATES)]
    for low, high, goal in PAIRS:
        what, one, other = f"{RATES[low]:g} against {RATES[high]:g}", found[low], found[high]
        rows.append(Row(f"deviation of the second over the first, {what}", float(other.std() / one.std())))
        rows.append(Row(f"correlation, {what}", float(np.corrcoef(one, other)[0, 1])))
        rows.append(Row(f"variance of {what}, nested / independent chips", shared_variance(one, other), goal))
    return rows


def net_rows(found: Mapping[str, Reals]) -> list[Row]:
    """Return the same for the difference of two nets at one rate; ``found`` is by net, as in ``rate_rows``."""
    rows = []
    for one, other in itertools.combinations(found, 2):
        for index in RATES_OF_NETS:
            title = f"variance of {one} against {other} at {RATES[index]:g}, same / independent chips"
            rows.append(Row(title, shared_variance(found[one][index], found[other][index])))
    return rows


def accuracies(net: nn.Module, data: Data, chips: int) -> Reals:
    """Return the accuracy at each rate on each chip ``[rates, chips]``; the same chips for every net."""
    result = campaign.run(
        net, data, "weights.bit_flip:1e-3", rates=RATES, chips=chips, study="benchmark", batch_size=len(data[0])
    )
    counted = [[campaign.Outcomes(**rate["images"]) for rate in unit["rates"]] for unit in result.units]
    return np.array([[images.share("correct_after") for images in chip] for chip in counted]).T


def shared_variance(one: Reals, other: Reals) -> float:
    """Return the variance of a difference on the same chips ``[chips]`` over that on chips of their own.

    The latter is the sum of the two variances, which the same chips give with less noise than more chips would.
    """
    return float((one - other).var(ddof=1) / (one.var(ddof=1) + other.var(ddof=1)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the uncertainty of campaigns where the truth is known.")
    parser.add_argument("--cache", type=Path, help="folder for what every fault does (default: none)")
    parser.add_argument("--images", type=parse_count, default=500, help="test images (default: 500)")
    parser.add_argument("--campaigns", type=parse_count, default=4000, help="simulated campaigns (default: 4000)")
    parser.add_argument("--chips", type=parse_count, default=1000, help="chips of a comparison (default: 1000)")
    parser.add_argument("--only", nargs="+", choices=NETS, default=[*NETS], help="nets (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the nets' trainings (default: 0)")
    options = parser.parse_args()
    digits = load_data("digits")
    training = (digits.train_images, digits.train_labels)
    data = (digits.test_images[: options.images], digits.test_labels[: options.images])
    settings = f"images: {len(data[0])}, campaigns: {options.campaigns}, chips: {options.chips}"
    found = {}
    for name in options.only:
        net = NETS[name](training, options.seed)
        truth, found[name] = inject_everything(net, data, options.cache), accuracies(net, data, options.chips)
        rows = [*truth_rows(truth), *coverage_rows(truth, options.campaigns)]
        rows += [*allocation_rows(truth, options.campaigns), *rate_rows(found[name])]
        print_rows(HEADINGS, [row.texts() for row in rows], f"{name}: {truth.population.size:,} faults, {settings}")
    for name, clip in (("trained under faults", SETTINGS.clip), ("trained under faults, weights not clipped", "none")):
        under = SETTINGS.model_copy(update={"clip": clip})
        net = trained(training, options.seed, faults=[TRAINING_FAULT], settings=under)
        found[name] = accuracies(net, data, options.chips)
    print_rows(HEADINGS, [row.texts() for row in net_rows(found)], settings)


if __name__ == "__main__":
    main()
