"""What a campaign measures: a net, the images, and the answers that faulty ones are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ftnas import __version__
from ftnas.campaign.measurement import batch_logits
from ftnas.errors import CampaignError
from ftnas.faults import sites
from ftnas.quantization import current_tap
from ftnas.runtime import evaluating

BATCH_SIZE = 256
Logits = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A net under attack.

    Attributes:
        model: with quantised layers, whatever its mode.
        images: ``[N, ...]``, on any device.
        labels: ``[N]``.
        batch_size: how many images one forward pass takes. Results follow from it in the last bits only, but do.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        sites(self.model)  # a model without any is refused here
        if not len(self.images) or self.labels.shape != (len(self.images),):
            raise CampaignError(
                f"data: {tuple(self.images.shape)} images and {tuple(self.labels.shape)} labels; allowed is "
                "one or more images [N, ...] and labels [N]"
            )
        if self.batch_size < 1:
            raise CampaignError(f"batch_size: {self.batch_size}; allowed is 1 or more")

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return _device(self.model)

    def batches(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield where in the data set each batch lies, and its images on the model's device."""
        for first in range(0, len(self.images), self.batch_size):
            place = slice(first, min(first + self.batch_size, len(self.images)))
            yield place, self.images[place].to(self.device)

    def answers(self) -> NDArray[np.int64]:
        """Return the labels ``[N]`` as numpy has them."""
        return self.labels.cpu().numpy().astype(np.int64)

    def logits(self, model: nn.Module | None = None) -> Logits:
        """Return the logits ``[N, K]`` of ``model``, by default the net itself, without faults."""
        chosen = self.model if model is None else model
        return as_array(batch_logits(chosen, self.images, batch_size=self.batch_size, device=_device(chosen)))

    def describe(self) -> dict[str, Any]:
        """Return what tells this net, these images and these versions from others: plain data for a header."""
        return {
            "model": {"class": type(self.model).__name__, "hash": model_hash(self.model)},
            "data": {"images": list(self.images.shape), "hash": _digest([self.images, self.labels])},
            "batch_size": self.batch_size,
            "versions": {"ftnas": __version__, "torch": torch.__version__, "numpy": np.__version__},
        }


def as_array(logits: Tensor) -> Logits:
    """Return ``logits`` ``[N, K]`` as a numpy array, float32 where numpy has no such format."""
    array: Logits = (logits.float() if logits.dtype == torch.bfloat16 else logits).cpu().numpy()
    return array


def model_hash(model: nn.Module) -> str:
    """Return a digest of the weights, the buffers and the number formats of ``model``."""
    return tensors_hash(model, *(f"{site.name} {site.number}" for site in sites(model)))


def tensors_hash(model: nn.Module, *texts: str) -> str:
    """Return a digest of the weights and buffers of ``model``, which may be any, and of ``texts``."""
    state = model.state_dict()
    return _digest(list(state.values()), *state, *texts)


@contextmanager
def undisturbed(*models: nn.Module | None) -> Iterator[None]:
    """Put ``models`` into evaluation mode for the block; mode and random state are as before afterwards.

    Raises:
        CampaignError: faults are being injected by somebody else.
    """
    if current_tap() is not None:
        raise CampaignError("a campaign cannot run inside inject(); give it the fault models instead")
    with torch.random.fork_rng(devices=()), evaluating(*(model for model in models if model is not None)):
        yield


def _device(model: nn.Module) -> torch.device:
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _digest(tensors: list[Tensor], *texts: str) -> str:
    digest = hashlib.blake2b("\x1f".join(texts).encode(), digest_size=16)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{tuple(plain.shape)} {plain.dtype}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
