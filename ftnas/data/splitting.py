"""Splitting images so that every class keeps its share."""

from __future__ import annotations

import torch
from torch import Tensor

from ftnas.data.dataset import Dataset
from ftnas.errors import DataError
from ftnas.runtime import keyed_generator

LabelledImages = tuple[Tensor, Tensor]


def split_train(dataset: Dataset, fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split the training images into a part of ``fraction`` of them and the rest, each shuffled.

    The split depends on the data set and ``seed`` only.

    Raises:
        DataError: one part would be empty.
    """
    total = len(dataset.train_labels)
    count = round(fraction * total) if 0 < fraction < 1 else 0
    if not 0 < count < total:
        raise DataError(f"split of {total} training images: both parts need some, got fraction {fraction}")
    rng = keyed_generator("data", "split", dataset.name, seed)
    first, second = draw_stratified(dataset.train_labels.cpu(), count, rng)
    return _picked(dataset, first), _picked(dataset, second)


def draw_stratified(labels: Tensor, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``count`` of the positions of ``labels`` ``[N]``, and return them and the others, both shuffled.

    Every class gives its share of ``count``, rounded up or down (largest remainder).
    """
    order = torch.randperm(len(labels), generator=rng)
    grouped = order[labels[order].argsort(stable=True)]
    sizes = labels.bincount()
    rank_in_class = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[grouped]]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[grouped] = rank_in_class < _shares(sizes, count)[labels[grouped]]
    # Classes are used up at different places of `order`, so its own tail would begin with the early ones.
    fresh = torch.randperm(len(labels), generator=rng)
    return fresh[chosen[fresh]], fresh[~chosen[fresh]]


def _shares(sizes: Tensor, count: int) -> Tensor:
    """Return how many each class gives, ``[classes]``, summing to ``count``."""
    exact = sizes * count
    total = int(sizes.sum())
    shares, remainders = exact // total, exact % total
    missing = count - int(shares.sum())
    shares[remainders.argsort(descending=True, stable=True)[:missing]] += 1
    return shares


def _picked(dataset: Dataset, positions: Tensor) -> LabelledImages:
    there = positions.to(dataset.train_labels.device)
    return dataset.train_images[there], dataset.train_labels[there]
