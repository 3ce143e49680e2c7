"""Float models as users write them, which know nothing of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, ...]


class Residual(nn.Module):
    """A residual net with functional activations, whose stem is read by batch norm and by the shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.stem(x)
        y = F.relu(self.norm(shortcut))
        y = self.second(F.relu(self.first_norm(self.first(y)), inplace=True))
        logits: Tensor = self.classifier(F.relu(y + shortcut).mean((2, 3)))
        return logits


class Shared(nn.Module):
    """One convolution for two scales, each with a batch norm of its own; outputs in a dictionary of tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.last = nn.Conv2d(4, 2, 1)
        self.last_norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        large, small = self.norms[0](self.head(x)), self.norms[1](self.head(x[..., ::2, ::2]))
        maps = tuple(self.last_norm(self.last(F.relu(y))) for y in (large, small))
        return {"maps": maps, "scores": [y.mean((2, 3)) for y in maps], "count": 2}


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor


class Dense(nn.Module):
    """A perceptron with batch norm that returns a dataclass, with its raw hidden values."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(12, 10)
        self.hidden_norm = nn.BatchNorm1d(10)
        self.middle = nn.Linear(10, 10, bias=False)
        self.middle_norm = nn.BatchNorm1d(10)
        self.out = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Answer:
        hidden = self.hidden(x)
        y = self.middle_norm(self.middle(F.gelu(self.hidden_norm(hidden))))
        return Answer(self.out(torch.sigmoid(y)), hidden)


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect", dilation=2),
        nn.ReLU(),
        nn.Conv2d(8, 6, (3, 1), padding=(1, 0), padding_mode="circular", bias=False),
        nn.BatchNorm2d(6, eps=1e-3),
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 5),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 9, 1, bias=False),
        nn.BatchNorm2d(9),
        nn.ReLU6(),
        nn.Conv2d(9, 9, 3, padding=1, groups=9, bias=False),
        nn.BatchNorm2d(9, momentum=None),
        nn.Conv2d(9, 6, 1, groups=3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def audio() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, stride=2, padding="valid"),
        nn.BatchNorm1d(6),
        nn.ELU(),
        nn.Conv1d(6, 6, 3, padding=1, padding_mode="replicate"),
        nn.AdaptiveAvgPool1d(3),
        nn.Flatten(),
        nn.Linear(18, 4),
    )


def volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))


# Each with the shape of one image, and the batch norms that hardware can fold, by the layer that they go into.
MODELS: Mapping[str, tuple[Callable[[], nn.Module], Shape, Mapping[str, str]]] = {
    "plain_cnn": (plain_cnn, (3, 8, 8), {"0": "1", "5": "6"}),
    "residual": (Residual, (3, 8, 8), {"first": "first_norm"}),
    "depthwise": (depthwise, (3, 8, 8), {"0": "1", "3": "4"}),
    "shared": (Shared, (3, 8, 8), {"last": "last_norm"}),
    "dense": (Dense, (12,), {"middle": "middle_norm"}),
    "audio": (audio, (2, 21), {"0": "1"}),
    "volume": (volume, (1, 4, 4, 4), {"0": "1"}),
}


def user_model(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model in evaluation mode whose batch norms have statistics, and images for it."""
    build, shape, _ = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, images = build(), torch.randn(96, *shape)
        with torch.no_grad():
            for norm in [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine]:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_()
            for _ in range(3):
                model(3 * images + 1)
    return model.eval(), images
