"""What faults cost: forward passes of ResNet-20 under faults, as ratios to the same passes without.

    python benchmarks/faults.py [--repeats N] [--threads N] [--batch N] [--keep-memory] [--only GROUP ...]

Random images and weights, evaluation mode, no gradients. Groups are timed one after the other, each with a reference
of its own, so that the two stand close together in time (see ``timing``).
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from other_tools import mrfi_steps, pytorchfi_steps
from steps import CLASSES, CPU, draw_batch, float_twin
from timing import Goal, Steps, choose_clock, measure, parse_count, print_table
from torch import Tensor, nn

from ftnas.campaign.late_start import LateStart
from ftnas.campaign.population import Population
from ftnas.campaign.single import population_of
from ftnas.errors import CampaignError
from ftnas.faults import (
    BitBias,
    BitFlip,
    CompiledNet,
    Fault,
    Flip,
    Injection,
    Plan,
    explicit_plan,
    inject,
    output_shapes,
    sites,
)
from ftnas.memory import keep_freed_memory
from ftnas.networks import build_baseline
from ftnas.quantization import FixedPoint, Number, QuantizedLayer, expose, tapped
from ftnas.runtime import keyed_generator, place, seeded

SHAPE = (3, 32, 32)
LISTED = 10_000
SINGLES = 64  # as many as a campaign does before it asks for the fault-free pass again
SINGLES_ROUNDS = 4  # a round of single faults is 128 passes, so it is done in a fourth of the rounds
SHARE = 1e-3  # of the values fail where tools are compared


def per_bit(rate: float, bits: int) -> float:
    """Return the rate of each of ``bits`` bits at which a value has a flipped one with probability ``rate``."""
    return -math.expm1(math.log1p(-rate) / bits)


DRAWN: Mapping[str, Fault] = {
    "bit bias of 1e-5 of the values": BitBias(1e-5),
    "bit bias of 1e-3 of the values": BitBias(1e-3),
    "bit bias of 1e-2 of the values": BitBias(1e-2),
    "bit flips in 1e-2 of the values": BitFlip(per_bit(1e-2, 8), target="features", scope="convolutions"),
}
COMPILED = ("bit bias of 1e-3 of the values", "bit bias of 1e-2 of the values")


def build_net(images: Tensor) -> nn.Module:
    """Return a quantised ResNet-20 in evaluation mode, whose ranges are those of ``images``."""
    with seeded("benchmark"), torch.no_grad():
        net = place(build_baseline("resnet20", width=1.0, image_shape=SHAPE, classes=CLASSES), CPU)
        net.train()(images)
    return net.eval()


def drawn_steps(net: nn.Module, images: Tensor) -> dict[str, Steps]:
    """Return passes under faults that are drawn anew in each, sparsely and by a mask."""
    chips = itertools.count()

    def step(fault: Fault) -> None:
        with inject(net, fault, chip=next(chips)):
            net(images)

    def dense() -> None:
        with tapped(DenseBitBias(SHARE)):
            net(images)

    drawn: dict[str, Steps] = {name: [partial(step, fault)] for name, fault in DRAWN.items()}
    return {"plain": [lambda: net(images)], **drawn, "bit bias of 1e-3 by a dense mask": [dense]}


class DenseBitBias:
    """Bit bias by one random number for each output of a convolution, as arXiv 2003.10375's code draws it."""

    def __init__(self, rate: float) -> None:
        self._rate, self._rng = rate, keyed_generator("dense mask")

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``."""
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Bias some of ``features`` by a bit; as in ``ftnas``, only those are read, changed and written."""
        if not isinstance(layer, QuantizedLayer) or layer.kind != "conv" or not isinstance(number, FixedPoint):
            return
        hit = torch.empty_like(features).uniform_(generator=self._rng) < self._rate
        values = features[hit]
        bit = torch.randint(number.bits, values.shape, generator=self._rng)
        sign = torch.randint(2, values.shape, generator=self._rng) * 2 - 1
        features[hit] = number.decode((number.encode(values) + sign * 2**bit).clamp(number.low, number.high))


def listed_steps(net: nn.Module, images: Tensor) -> dict[str, Steps]:
    """Return passes under faults that are listed one by one, and the making of the lists."""
    shapes = output_shapes(net, images)
    of_outputs, of_weights = output_flips(net, images, shapes), weight_flips(net, LISTED)
    plans = {
        "10,000 listed faults of outputs": explicit_plan(net, of_outputs, shapes=shapes, images=len(images)),
        "10,000 listed faults of weights": explicit_plan(net, of_weights),
    }

    def step(plan: Plan) -> None:
        with inject(net, plan):
            net(images)

    passes: dict[str, Steps] = {name: [partial(step, plan)] for name, plan in plans.items()}
    making: Steps = [lambda: explicit_plan(net, of_outputs, shapes=shapes, images=len(images))]
    return {"plain": [lambda: net(images)], **passes, "making the list of outputs": making}


def output_flips(net: nn.Module, images: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> list[Flip]:
    """Return ``LISTED`` different bits of all outputs of all ``images``, each as likely as any other."""
    found = {site.name: site for site in sites(net, "*.output", shapes=shapes)}
    population = Population(tuple((name, site.values * len(images), site.bits) for name, site in found.items()))
    return [
        Flip(name, element % found[name].values, bit, image=element // found[name].values)
        for name, element, bit in draw_bits(population, LISTED)
    ]


def weight_flips(net: nn.Module, count: int) -> list[Flip]:
    """Return ``count`` different bits of all weights, each as likely as any other."""
    return [Flip(*place) for place in draw_bits(population_of(net), count)]


def draw_bits(population: Population, count: int) -> list[tuple[str, int, int]]:
    """Return site, element and bit of ``count`` different bits of ``population``."""
    (everything,) = population.strata("network")
    drawn = population.locate(population.draw(everything, count, np.random.default_rng(0)))
    names = [population.sites[site][0] for site in drawn.site.tolist()]
    return list(zip(names, drawn.element.tolist(), drawn.bit.tolist(), strict=True))


def single_steps(net: nn.Module, images: Tensor) -> dict[str, Steps]:
    """Return passes under single faults of weights: whole ones, and by late start with the pass it starts from.

    Raises:
        CampaignError: the two differ in a bit.
    """
    flips = weight_flips(net, SINGLES)
    plans, layers = [explicit_plan(net, [flip]) for flip in flips], dict(net.named_modules())
    late = LateStart(net, images)

    def whole() -> list[Tensor]:
        logits = []
        for plan in plans:
            with inject(net, plan):
                logits.append(net(images))
        return logits

    def late_start() -> list[Tensor]:
        golden = late.golden(images)
        taps = [Injection(net, plan, first_image=0, gradient="masked") for plan in plans]
        hit = [layers[flip.site.removesuffix(".weight")] for flip in flips]
        return [golden.logits_with(tap, layer) for tap, layer in zip(taps, hit, strict=True)]

    if not all(map(torch.equal, whole(), late_start())):
        raise CampaignError("late start: its logits are not those of the whole passes, to the bit")
    return {"whole passes, single faults of weights": [whole], "late start": [late_start]}


def float_steps(net: nn.Module, images: Tensor) -> dict[str, Steps]:
    """Return passes of the float twin of ``net``: plain, with faults in float32 words, and by other tools."""
    # In torch's default layout, since MRFI takes no other.
    twin = float_twin(net).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    exposed, chips = expose(twin, images), itertools.count()
    shapes = output_shapes(exposed, images)
    listed = explicit_plan(exposed, output_flips(exposed, images, shapes), shapes=shapes, images=len(images))
    faults: Mapping[str, Fault] = {
        "bit flips in 1e-3 of the outputs": BitFlip(per_bit(SHARE, 32), target="features", scope="convolutions"),
        "bit flips in 1e-3 of the weights": BitFlip(per_bit(SHARE, 32), scope="convolutions"),
    }

    def step(fault: Fault) -> None:
        with inject(exposed, fault, chip=next(chips)):
            exposed(images)

    def replay() -> None:
        with inject(exposed, listed):
            exposed(images)

    ours: dict[str, Steps] = {name: [partial(step, fault)] for name, fault in faults.items()}
    others = pytorchfi_steps(twin, images, LISTED, rate=SHARE) | mrfi_steps(twin, images, rate=SHARE)
    return {
        "plain float32": [lambda: twin(images)],
        "10,000 listed faults of float32 outputs": [replay],
        **ours,
        **others,
    }


def compiled_steps(net: nn.Module, images: Tensor) -> dict[str, Steps]:
    """Return passes of compiled nets, each on another chip; what compilation took is printed."""
    chips = itertools.count()
    torch.compiler.config.force_disable_caches = True  # or an earlier run's compilation would be found on disk
    warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")

    def compiled(fault: Fault) -> Steps:
        began = time.perf_counter()
        fast = CompiledNet(net, images, fault)
        fast(images)
        print(f"compiled for {fault} in {time.perf_counter() - began:.0f} s by the clock")
        return [lambda: fast(images, chip=next(chips))]

    # At rate 0 weights are the same on all chips and put in once, so this is the plain net compiled.
    plain = compiled(BitFlip(0.0))
    return {"compiled plain": plain, **{f"compiled, {name}": compiled(DRAWN[name]) for name in COMPILED}}


Group = Callable[[nn.Module, Tensor], dict[str, Steps]]

# What is timed together. The first variant of a group is what the times of the others are divided by.
GROUPS: Mapping[str, Group] = {
    "drawn": drawn_steps,
    "listed": listed_steps,
    "single": single_steps,
    "float": float_steps,
    "compiled": compiled_steps,
}
LIMITS: Mapping[str, float] = {
    **dict.fromkeys(DRAWN, 1.1),
    **{f"compiled, {name}": 1.1 for name in COMPILED},
    "10,000 listed faults of outputs": 1.1,
    "10,000 listed faults of weights": 1.1,
    "late start": 0.35,
}


def goals_of(variants: Sequence[str]) -> list[Goal]:
    """Return the goals of a group of variants."""
    reference, *others = variants
    return [Goal(f"{name} / {reference}", name, LIMITS.get(name), reference) for name in others]


def main() -> None:
    """Measure and print, group by group."""
    parser = argparse.ArgumentParser(description="Time forward passes under faults against passes without.")
    parser.add_argument("--repeats", type=parse_count, default=10, help="rounds (default: 10)")
    parser.add_argument("--threads", type=parse_count, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--batch", type=parse_count, default=128, help="images of a pass (default: 128)")
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory, as every command does")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=[*GROUPS], help="groups (default: all)")
    options = parser.parse_args()
    clock, unit = choose_clock(options.threads)
    if options.keep_memory and not keep_freed_memory():
        parser.error("--keep-memory: this C library cannot, or its variables are set already")
    images, _ = draw_batch(options.batch, SHAPE)
    net = build_net(images)
    for group in options.only:
        rounds = math.ceil(options.repeats / SINGLES_ROUNDS) if group == "single" else options.repeats
        with torch.no_grad():
            variants = GROUPS[group](net, images)
            seconds = measure(variants, rounds=rounds, clock=clock)
        print_table(goals_of([*variants]), seconds, f"{group}: {unit}, rounds: {rounds}, images: {options.batch}")


if __name__ == "__main__":
    main()
