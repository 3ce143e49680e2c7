"""A small quantised network, its faults, and a made-up output, for the tests of the fault layer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ftnas.faults import FAULTS, Fault, inject, parse_fault
from ftnas.quantization import FixedPoint, Quantization, QuantizedConv2d, QuantizedLinear, QuantizedSum, Range


class Net(nn.Module):
    """Two convolutions, a sum and a classifier, on 8x8 images."""

    def __init__(self, choices: tuple[Quantization, ...] = (Quantization(),)) -> None:
        super().__init__()
        self.stem = QuantizedConv2d(3, 8, 3, choices=choices)
        self.body = QuantizedConv2d(8, 8, 3, groups=2, choices=choices)
        self.sum = QuantizedSum(choices=choices)
        self.head = QuantizedLinear(8, 10, choices=choices)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        y = self.sum([y, self.body(y)])
        logits: Tensor = self.head(torch.relu(y).mean((2, 3)))
        return logits


IMAGES = 150
LEARNED = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))
# A model's strength is a rate, but that of a variation is a sigma, in units of a range or a logarithm.
EVERY_FAULT = [parse_fault(f"{name}:0.05:scope=all") for name in FAULTS]
VARIANTS = [
    parse_fault(text + ":scope=all")
    for text in (
        "weights.bit_flip:0.05:adjacent=3",
        "weights.stuck_bit:0.05:stuck_at_one=0.9",
        "weights.directed_flip:0.05:to_one=0.3:to_zero=0.8",
        "weights.stuck_cell:0.05:reach=range_end",
        "features.bit_flip:0.05:adjacent=2:duration=permanent",
        "features.directed_flip:0.05:to_one=0.9:to_zero=0:duration=intermittent:activity=0.3",
        "features.random_value:0.05:duration=intermittent",
        "features.mac_bit_bias:0.001:rounding=published",
        "features.pattern:0.05:shape=row:value=zero",
        "features.pattern:0.02:shape=channel:value=out_of_range",
        "features.pattern:0.02:shape=block:size=3:value=flip",
        "features.pattern:0.1:shape=across_channels:duration=permanent",
    )
]
FEATURE_FAULTS = [fault for fault in EVERY_FAULT + VARIANTS if fault.target == "features"]
WEIGHT_FAULTS = [fault for fault in EVERY_FAULT + VARIANTS if fault.target == "weights"]
DRAWN_FAULTS = [fault for fault in EVERY_FAULT + VARIANTS if fault.strength == "rate"]


def some_images() -> Tensor:
    return torch.randn(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def trained_net() -> Net:
    """Return a net in evaluation mode whose ranges are known."""
    torch.manual_seed(0)
    model = Net()
    model(some_images())
    return model.eval()


class Probe:
    """One layer's output, made up, so that no convolution's rounding hides or shows a fault."""

    def __init__(self, shape: tuple[int, ...] = (8, 8, 8)) -> None:
        self.model = nn.Sequential(QuantizedConv2d(8, 8, 3))
        self.features = torch.randint(-128, 128, (IMAGES, *shape), generator=torch.Generator().manual_seed(1)) * 0.5
        self.number = FixedPoint(8, 0.5)

    def faulty(self, fault: Fault, batches: Iterable[range], *, channels_last: bool = False) -> Tensor:
        result = self.features.clone()
        for batch in batches:
            part = result[batch.start : batch.stop].clone()
            part = part.contiguous(memory_format=torch.channels_last) if channels_last else part
            with inject(self.model, fault, chip=7, first_image=batch.start) as injection:
                injection.output(self.model[0], part, self.number)
            result[batch.start : batch.stop] = part
        return result


def batches_of(size: int) -> list[range]:
    return [range(first, min(first + size, IMAGES)) for first in range(0, IMAGES, size)]


def digest(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def state(model: nn.Module, images: Tensor) -> tuple[object, ...]:
    """Return everything that an injection might have changed."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    randomness = (digest(torch.random.get_rng_state()), str(np.random.get_state()), random.getstate())
    values = {name: digest(tensor) for name, tensor in model.state_dict().items()}
    return digest(images), values, randomness, hooks, modes, [sorted(vars(m)) for m in model.modules()]
