"""What hardened layers cost in time, over what their counted multiply-accumulates allow.

    python benchmarks/hardening.py [--repeats N] [--threads N]

Three convolutions of a ResNet-20 for 3x32x32, and all of it; batches of 64, a quarter of the channels split, or all. A
ratio is the time of the split net over that of the net, divided by 1 and the share: 1.1 is 10 % more than what is
counted. Bits of outputs flip at a rate of 1e-3 in both, or bits of weights. How times are taken is said in ``timing``;
the ratio of the fastest rounds is shown beside the median, since other jobs on the machine take the caches away.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from timing import choose_clock, measure, parse_count, print_rows, verdict
from torch import Tensor, nn

from ftnas.faults import inject, output_shapes
from ftnas.networks.baselines import build_baseline
from ftnas.networks.hardened import protect_
from ftnas.networks.protection import Protection
from ftnas.quantization import QuantizedConv2d, quantized_layers
from ftnas.runtime import keyed_generator, place, seeded

IMAGES, LIMIT = 64, 1.1
LAYERS = ((16, 32), (32, 16), (64, 8))  # channels in and out, size of the map
SHARES = (0.25, 1.0)
FLIPS, WEIGHT_FLIPS = "features.bit_flip:1e-3", "weights.bit_flip:1e-3"


def layer(channels: int, size: int) -> tuple[nn.Module, Tensor]:
    """Return a convolution whose ranges are known, and its input."""
    with seeded("hardening benchmark"):
        net = place(nn.Sequential(QuantizedConv2d(channels, channels, 3)), torch.device("cpu"))
    x = torch.randn(IMAGES, channels, size, size, generator=keyed_generator("hardening benchmark"))
    net.train()(x)
    return net.eval(), x.to(memory_format=torch.channels_last)


@torch.no_grad()
def clean(net: nn.Module, x: Tensor) -> None:
    """Run ``net`` without faults."""
    net(x)


@torch.no_grad()
def faulty(net: nn.Module, x: Tensor, *, faults: str) -> None:
    """Run ``net`` on a faulty chip."""
    with inject(net, faults):
        net(x)


def split_net(net: nn.Module, x: Tensor, share: float) -> nn.Module:
    """Return a copy of ``net`` with a ``share`` of the channels of every layer split, evenly spread."""
    every, shapes = round(1 / share), output_shapes(net, x[:1])
    plan = {
        path: Protection("split", "min", tuple(range(0, shapes[f"{path}.output"][0], every)))
        for path in quantized_layers(net)
    }
    return protect_(copy.deepcopy(net), plan)


def resnet() -> tuple[nn.Module, Tensor]:
    """Return a ResNet-20 whose ranges are known, and images for it."""
    with seeded("hardening benchmark"):
        net = place(build_baseline("resnet20", image_shape=(3, 32, 32), classes=10), torch.device("cpu"))
    x = torch.randn(IMAGES, 3, 32, 32, generator=keyed_generator("hardening benchmark"))
    net.train()(x)
    return net.eval(), x


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=parse_count, default=12)
    parser.add_argument("--threads", type=parse_count, default=1)
    arguments = parser.parse_args()
    clock, unit = choose_clock(arguments.threads)
    passes: dict[str, Callable[[nn.Module, Tensor], None]] = {
        "without faults": clean,
        "outputs fail": partial(faulty, faults=FLIPS),
        "weights fail": partial(faulty, faults=WEIGHT_FLIPS),
    }
    nets = {f"{channels} channels, {size}x{size}": layer(channels, size) for channels, size in LAYERS}
    rows = []
    for title, (net, x) in {**nets, "ResNet-20, all layers": resnet()}.items():
        for share in SHARES:
            split = split_net(net, x, share)
            for name, run in passes.items():
                variants = {"plain": [partial(run, net, x)], "split": [partial(run, split, x)]}
                seconds = measure(variants, rounds=arguments.repeats, clock=clock)
                ratios = sorted(
                    one / other / (1 + share) for one, other in zip(seconds["split"], seconds["plain"], strict=True)
                )
                found = ratios[len(ratios) // 2]
                least = min(seconds["split"]) / min(seconds["plain"]) / (1 + share)
                rows.append((title, f"{share:.0%}", name, f"{found:.2f}", f"{least:.2f}", *verdict(found, LIMIT)))
    headings = ("layer", "split", "pass", "ratio", "of fastest", "allowed", "")
    print_rows(headings, rows, f"time over counted work; {unit}")


if __name__ == "__main__":
    main()
