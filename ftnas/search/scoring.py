"""Scores of candidates: shared weights, recalibrated statistics, the same images and chips for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ftnas.campaign import accuracy, chip_accuracies
from ftnas.faults import Fault
from ftnas.networks import CellNetwork
from ftnas.quantization import quantized_layers
from ftnas.search.candidates import Score
from ftnas.space import Genotype
from ftnas.training import recalibrate


@dataclass(frozen=True)
class Scorer:
    """Scores genotypes with the weights of ``supernet``.

    Args:
        images: ``[N, C, H, W]`` that no shared weight was trained on.
        calibration: ``[M, C, H, W]`` training images for batch norm and ranges.
        chips: how many chips a score is the mean of.
        study: names the chips: two scorers of one study see the same ones.
        vulnerability: gives the factor of a pass (supernet, pass, images) that the study minimises; ``None`` for none.
    """

    supernet: CellNetwork
    images: Tensor
    labels: Tensor
    calibration: Tensor
    faults: Sequence[Fault]
    chips: int
    study: str
    vulnerability: Callable[[nn.Module, Callable[[Tensor], Tensor], Tensor], float] | None = None

    def __call__(self, genotype: Genotype) -> Score:
        """Return clean and faulty accuracy of ``genotype``, and its vulnerability where that counts."""
        return self.score(genotype, range(self.chips))

    def fresh(self, genotype: Genotype, chips: int) -> Score:
        """Return the score on ``chips`` chips that no candidate was chosen by."""
        return self.score(genotype, range(self.chips, self.chips + chips))

    def score(self, genotype: Genotype, chips: Sequence[int]) -> Score:
        """Return the score of ``genotype`` on these ``chips``."""

        def forward(x: Tensor) -> Tensor:
            logits: Tensor = self.supernet(x, genotype)
            return logits

        self._reset_ranges()
        recalibrate(self.supernet, self.calibration, forward=forward)
        clean = accuracy(self.supernet, self.images, self.labels, forward=forward)
        faulty = chip_accuracies(
            self.supernet,
            self.images,
            self.labels,
            faults=self.faults,
            chips=chips,
            study=self.study,
            forward=forward,
        )
        factor = None if self.vulnerability is None else self.vulnerability(self.supernet, forward, self.images)
        return Score(clean=clean, faulty=sum(faulty) / len(faulty), chips=tuple(faulty), vulnerability=factor)

    def _reset_ranges(self) -> None:
        """Forget learned ranges that training never reached: calibration began them, by another candidate's images."""
        with torch.no_grad():
            for limit, value in self._unreached:
                limit.copy_(value)

    @cached_property
    def _unreached(self) -> list[tuple[Tensor, Tensor]]:
        layers = quantized_layers(self.supernet).values()
        limits = [layer.learned_feature_limit for layer in layers if hasattr(layer, "learned_feature_limit")]
        return [(limit, limit.detach().clone()) for limit in limits if float(limit.detach()) <= 0]
