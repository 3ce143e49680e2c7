"""Accuracy under faults: many chips, all images, an interval that treats the chip as the unit."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from ftnas.faults import Fault, inject

CONFIDENCE = 0.95


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
        mean = statistics.fmean(chips)
        if len(chips) < 2:
            return cls(mean, 0.0, 1.0, tuple(chips))
        error = statistics.stdev(chips) / len(chips) ** 0.5
        half = float(student.ppf(0.5 + confidence / 2, len(chips) - 1)) * error
        return cls(mean, max(0.0, mean - half), min(1.0, mean + half), tuple(chips))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "chips": list(self.chips)}


@torch.no_grad()
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
    hits = sum(
        int(((forward or model)(x).argmax(1) == y).sum())
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
    )
    return hits / len(labels)


@torch.no_grad()
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
    results = []
    for chip in chips:
        hits = 0
        # One injection a chip: the faults of weights are drawn once, those of features batch by batch.
        with inject(model, faults, chip=chip, study=study) as injection:
            for first in range(0, len(images), batch_size):
                injection.first_image = first
                x, y = images[first : first + batch_size], labels[first : first + batch_size]
                hits += int(((forward or model)(x).argmax(1) == y).sum())
        results.append(hits / len(labels))
    return results
