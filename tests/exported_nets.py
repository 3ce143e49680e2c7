"""Nets to export that are built in a moment: a found one, a baseline, one of a user's own; and graphs of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import make_run
from small_nets import digits
from torch import Tensor, nn

from ftnas.data import Dataset
from ftnas.export.graph import Graph, Node, Operation, Weight
from ftnas.export.weights import build_net
from ftnas.faults import quantize
from ftnas.files import write_json, write_tensors
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.quantization import FixedPoint, Quantization
from ftnas.runtime import place, seeded
from ftnas.space import load_space

TEST_IMAGES = 80
ENDS = {"image_shape": [1, 8, 8], "classes": 10}


@cache
def data() -> Dataset:
    """Return the digits with few test images."""
    whole = digits()
    images, labels = whole.test_images[:TEST_IMAGES], whole.test_labels[:TEST_IMAGES]
    return Dataset("digits", whole.train_images, whole.train_labels, images, labels, whole.classes)


@cache
def found() -> Checkpoint:
    """Return a net of cells."""
    space = load_space("tiny")
    drawn = space.sample(torch.Generator().manual_seed(3))
    spec = {
        **ENDS, "space": space.to_dict(), "sizes": space.final.model_dump(mode="json"), "genotype": drawn.to_dict(),
    }  # fmt: skip
    return _of_spec("found", spec)


@cache
def baseline() -> Checkpoint:
    """Return a ResNet-20 of few channels."""
    return _of_spec("baseline", {**ENDS, "baseline": "resnet20", "width": 0.125, "numbers": Quantization().to_dict()})


def _of_spec(name: str, spec: Mapping[str, Any]) -> Checkpoint:
    with seeded("exported nets"):
        model = place(build_net(spec, source=name), torch.device("cpu"))
    for images in data().train_images[:128].split(32):
        model.train()(images)
    return Checkpoint(name, model.eval(), data(), spec=spec)


class OwnNet(nn.Module):
    """As a user writes it: a residual block, pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.block(torch.relu(x)) + x)
        logits: Tensor = self.classifier(nn.functional.max_pool2d(x, 2).flatten(1))
        return logits


def own_float() -> nn.Module:
    with seeded("own net"):
        return OwnNet().eval()


def own(**numbers: Any) -> Checkpoint:
    """Return it quantised."""
    return Checkpoint("own", quantize(own_float(), data().train_images[:128], **numbers), data())


def training_folder(folder: Path, net: Checkpoint) -> Path:
    """Write ``net`` as a finished training of a run, and return its folder."""
    home = make_run(folder / "run") / "trainings" / net.name
    spec = dict(net.spec or {})
    kept = {key: spec[key] for key in ("genotype", "baseline", "width", "numbers") if key in spec}
    model = kept | ({"channels": spec["sizes"]["channels"]} if "sizes" in spec else {})
    write_json(home / "model.json", {"name": net.name, "model": model, "seed": 0})
    write_tensors(home / "weights.safetensors", net.model.state_dict())
    return home


@dataclass(frozen=True)
class Step:
    """A graph of one step, and images for it."""

    graph: Graph
    images: Tensor


def one_step(
    operation: Operation, images: Tensor, shape: tuple[int, ...], *, terms: int = 1, number: FixedPoint | None = None
) -> Step:
    node = Node("step", operation, ("input",) * terms, shape, number, "step")
    return Step(Graph("step", tuple(images.shape[1:]), (node,), "step"), images)


def weight(*shape: int, number: FixedPoint, seed: int = 0) -> Weight:
    """Return random integers of ``number`` that reach both of its ends."""
    codes = np.random.default_rng(seed).integers(number.low, number.high + 1, size=shape).astype(np.int32)
    codes.flat[0], codes.flat[-1] = number.low, number.high
    return Weight(codes, number)


def dyadic(*shape: int, seed: int = 0) -> Tensor:
    """Return multiples of 1/16 from -8 to 8, whose sums of products with such weights float32 holds exactly."""
    return torch.randint(-128, 129, shape, generator=torch.Generator().manual_seed(seed)) / 16
