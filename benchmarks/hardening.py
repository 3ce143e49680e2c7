"""What hardened layers cost in time, over what their counted multiply-accumulates allow.

    python benchmarks/hardening.py [--repeats N] [--threads N]

Three convolutions of a ResNet-20 for 3x32x32, batches of 64, a quarter of their channels split, or all. A ratio is the
time of the split layer over that of the layer, divided by 1 and the share: 1.1 is 10 % more than what is counted.
Without faults copies are not computed, as they would only repeat the layer. With faults, bits of activations flip at a
rate of 1e-3 in both; copies are computed, and every value is merged. How times are taken is said in ``timing``.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from timing import choose_clock, measure, parse_count, print_rows
from torch import Tensor, nn

from ftnas.faults import inject
from ftnas.networks.hardened import protect_
from ftnas.networks.protection import Protection
from ftnas.quantization import QuantizedConv2d
from ftnas.runtime import keyed_generator, place, seeded

IMAGES, LIMIT = 64, 1.1
LAYERS = ((16, 32), (32, 16), (64, 8))  # channels in and out, size of the map
SHARES = (0.25, 1.0)
FLIPS = "features.bit_flip:1e-3"


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
def faulty(net: nn.Module, x: Tensor) -> None:
    """Run ``net`` on a faulty chip."""
    with inject(net, FLIPS):
        net(x)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=parse_count, default=12)
    parser.add_argument("--threads", type=parse_count, default=1)
    arguments = parser.parse_args()
    clock, unit = choose_clock(arguments.threads)
    passes: dict[str, Callable[[nn.Module, Tensor], None]] = {"without faults": clean, "with faults": faulty}
    rows = []
    for channels, size in LAYERS:
        net, x = layer(channels, size)
        for share in SHARES:
            chosen = tuple(range(round(share * channels)))
            split = protect_(copy.deepcopy(net), {"0": Protection("split", "min", chosen)})
            for name, run in passes.items():
                variants = {"plain": [partial(run, net, x)], "split": [partial(run, split, x)]}
                seconds = measure(variants, rounds=arguments.repeats, clock=clock)
                ratios = sorted(
                    one / other / (1 + share) for one, other in zip(seconds["split"], seconds["plain"], strict=True)
                )
                found = ratios[len(ratios) // 2]
                rows.append((f"{channels} channels, {size}x{size}", f"{share:.0%}", name, f"{found:.2f}",
                             f"{LIMIT:g}", "met" if found <= LIMIT else "missed"))  # fmt: skip
    print_rows(("layer", "split", "pass", "ratio", "allowed", ""), rows, f"time over counted work; {unit}")


if __name__ == "__main__":
    main()
