"""Trainings that one process does alone, or several share: a program, so that torchrun and tests can start it.

python tests/shared_trainings.py STORE RANK SIZE FOLDER NAME...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from small_nets import digits
from torch import Tensor, nn

from ftnas.data import Augmentation
from ftnas.distributed import joined_by
from ftnas.faults import parse_fault
from ftnas.files import write_tensors
from ftnas.networks import CellNetwork
from ftnas.quantization import Activation, Quantization, QuantizedConv2d, QuantizedLinear, QuantizedSum, Range
from ftnas.runtime import seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.supernet_training import SupernetSettings, SupernetTrainer
from ftnas.space import load_space
from ftnas.training import TrainingSettings, train

IMAGES, BATCH = 48, 16
LEARNED = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))
FEATURES = ("features.bit_bias:1e-2",)
FLEETING = ("weights.bit_flip:5e-3:duration=transient", "features.bit_flip:2e-3")


class Net(nn.Module):
    """Two convolutions with batch norm around a sum, and a classifier: ``[N, 1, 8, 8] -> [N, 10]``."""

    def __init__(self, numbers: Quantization) -> None:
        super().__init__()
        choices = (numbers,)
        self.first = QuantizedConv2d(1, 4, 3, choices=choices)
        self.second = QuantizedConv2d(4, 4, 3, choices=choices)
        self.sum = QuantizedSum(choices=choices)
        self.activation = Activation()
        self.classifier = QuantizedLinear(4 * 16, 10, choices=choices)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = self.activation(self.sum([y, self.second(self.activation(y))]))
        logits: Tensor = self.classifier(F.avg_pool2d(y, 2).flatten(1))
        return logits


def net_states(
    *, faults: tuple[str, ...] = (), numbers: Quantization | None = None, wide: bool = True, **settings: Any
) -> dict[str, Tensor]:
    """Train two epochs of three steps; ``wide`` in float64, where sums in another order differ by next to nothing."""
    with seeded("shared"):
        net = Net(numbers or Quantization())
    images, labels = digits().train_images[:IMAGES], digits().train_labels[:IMAGES]
    if wide:
        net, images = net.double(), images.double()
    chosen = TrainingSettings.model_validate(
        {"epochs": 2, "batch_size": BATCH, "augmentation": Augmentation(crop_padding=1, flip=True), **settings}
    )
    records = train(net, images, labels, settings=chosen, faults=[parse_fault(text) for text in faults], key="shared")
    losses = torch.tensor([[record.loss, record.faulty_loss, record.clean_accuracy] for record in records])
    return {**net.state_dict(), "losses": losses}


def supernet_states(folder: Path, **settings: Any) -> dict[str, Tensor]:
    """Train the supernet of the tiny space for three steps on weights and one on architecture weights."""
    space = load_space("tiny")
    with seeded("shared supernet"):
        supernet = CellNetwork(space, space.search, image_shape=(1, 8, 8), classes=10).double()
        architecture = ArchitectureWeights(space).double()
    images, labels = digits().train_images[:64].double(), digits().train_labels[:64]
    trainer = SupernetTrainer(
        supernet,
        architecture,
        settings=SupernetSettings(epochs=1, warm_up=0, batch_size=BATCH, **settings),
        faults=[parse_fault("features.mac_bit_bias:1e-2")],
        key="shared",
    )
    trainer.train(
        (images[:48], labels[:48]),
        (images[48:], labels[48:]),
        checkpoint=folder / f"{settings['relaxation']}.checkpoint",
    )
    return {**supernet.state_dict(), **architecture.state_dict()}


TRAININGS: Mapping[str, Callable[[Path], dict[str, Tensor]]] = {
    "qat": lambda _: net_states(objective="qat"),
    "qat in float32": lambda _: net_states(objective="qat", wide=False),
    "ftt, features": lambda _: net_states(faults=FEATURES),
    "ftt, published bias": lambda _: net_states(faults=("features.mac_bit_bias:1e-2:bias=published",)),
    "ftt, weights": lambda _: net_states(faults=("weights.stuck_cell:0.05",)),
    "ftt, transient weights": lambda _: net_states(faults=FLEETING),
    "ftt, learned ranges": lambda _: net_states(faults=FEATURES, numbers=LEARNED),
    "ftt, sparse": lambda _: net_states(faults=FEATURES, sparsity={"l1": 0.05, "hoyer": 0.01}),
    "sam": lambda _: net_states(faults=FEATURES, objective="sam"),
    "sam, relative": lambda _: net_states(faults=FEATURES, objective="sam", relative_rho=0.05),
    "saq": lambda _: net_states(faults=FEATURES, objective="saq"),
    "randbet": lambda _: net_states(faults=("weights.bit_flip:0.01",), objective="randbet", loss_gate=10),
    "worst_bits": lambda _: net_states(faults=("weights.bit_flip:0.001",), objective="worst_bits", loss_gate=10),
    "supernet, gumbel": lambda folder: supernet_states(folder, relaxation="gumbel"),
    "supernet, softmax": lambda folder: supernet_states(folder, relaxation="softmax"),
}


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(', ', '-').replace(' ', '_')}.safetensors"


def do(folder: Path, names: list[str]) -> None:
    """Leave what each of the trainings ``names`` ends in, in ``folder``."""
    for name in names:
        write_tensors(file_of(folder, name), TRAININGS[name](folder))


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, rank, size, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    with joined_by(torch.distributed.FileStore(store, size), rank=rank, size=size):
        do(folder, sys.argv[5:] or list(TRAININGS))
