"""Accuracy under faults: many chips, all images, an interval that treats the chip as the unit."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.campaign.intervals import student_interval
from ftnas.campaign.sample_size import CONFIDENCE
from ftnas.errors import CampaignError
from ftnas.faults import Count, Fault, inject


@dataclass(frozen=True)
class Measurement:
    """Mean accuracy over chips and its two-sided interval (Student's t over chips, arXiv 2003.10375 has none)."""

    mean: float
    low: float
    high: float
    chips: tuple[float, ...]

    @classmethod
    def over(cls, chips: Sequence[float], confidence: float = CONFIDENCE) -> Measurement:
        """Return the measurement of these accuracies, one a chip; one chip alone has the interval [0, 1]."""
        interval = student_interval(chips, confidence)
        return cls(statistics.fmean(chips), interval.low, interval.high, tuple(chips))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "chips": list(self.chips)}


@torch.no_grad()
def batch_logits(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    batch_size: int = 512,
    device: torch.device | None = None,
    before: Callable[[int], None] = lambda first: None,
) -> Tensor:
    """Return the logits ``[N, K]`` of ``images`` ``[N, ...]``.

    Args:
        forward: ``[B, ...] -> [B, K]``.
        images: on any device.
        batch_size: B, but for the last batch.
        device: where ``forward`` wants them; by default where they are.
        before: called before each batch with the number of its first image.

    Raises:
        CampaignError: ``forward`` returns something else.
    """
    parts = []
    for first in range(0, len(images), batch_size):
        before(first)
        x = images[first : first + batch_size]
        parts.append(_logits(forward(x if device is None else x.to(device))))
    return torch.cat(parts)


def _logits(answer: object) -> Tensor:
    if not isinstance(answer, Tensor) or answer.ndim != 2 or not answer.is_floating_point():
        what = f"{answer.dtype} {list(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        raise CampaignError(f"the model must return logits [images, classes], got {what}")
    return answer


def accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 512,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Return the share of ``images`` ``[N, C, H, W]`` that ``model``, in evaluation mode, classifies right."""
    model.eval()
    return _share_right(batch_logits(forward or model, images, batch_size=batch_size), labels)


def chip_logits(
    model: nn.Module,
    images: Tensor,
    *,
    faults: Sequence[Fault],
    chip: int,
    study: str,
    batch_size: int = 512,
    device: torch.device | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    before: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Mapping[str, Count]]:
    """Return the logits ``[N, K]`` that ``chip`` gives, and how many faults met each site.

    Arguments as in ``batch_logits``; ``before`` is called before each batch, too.
    """
    # One injection a chip: the faults of weights are drawn once, those of features batch by batch.
    with inject(model, faults, chip=chip, study=study) as injection:

        def begin(first: int) -> None:
            before()
            injection.first_image = first

        logits = batch_logits(forward or model, images, batch_size=batch_size, device=device, before=begin)
        return logits, injection.counts


def chip_accuracies(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    faults: Sequence[Fault],
    chips: Iterable[int],
    study: str,
    batch_size: int = 512,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> list[float]:
    """Return the accuracy of each chip of ``chips``: the same chips for every model of one ``study``."""
    model.eval()
    answers = (
        chip_logits(model, images, faults=faults, chip=chip, study=study, batch_size=batch_size, forward=forward)
        for chip in chips
    )
    return [_share_right(logits, labels) for logits, _ in answers]


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return int((logits.argmax(1) == labels).sum()) / len(labels)
