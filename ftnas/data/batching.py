"""One epoch of shuffled, augmented batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ftnas.data.augmentation import Augmentation, augment, draw_changes
from ftnas.distributed import check_shared, sharing
from ftnas.errors import DataError
from ftnas.runtime import keyed_generator, moved


def batches(
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    augmentation: Augmentation,
    key: tuple[str | int, ...],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches ``[batch_size, C, H, W]`` and ``[batch_size]`` of one epoch, on the images' device.

    The epoch is a function of ``key`` alone: order and changes are drawn from its stream at the start, so the
    epochs of a resumed training are those of an uninterrupted one. The last, incomplete batch is dropped. Where
    processes share the steps, each gets its part of the same batches.

    Raises:
        DataError: there are fewer images than one batch, or the augmentation does not fit them.
    """
    if not 1 <= batch_size <= len(images):
        raise DataError(f"batch_size: 1..{len(images)} for {len(images)} images, got {batch_size}")
    check_shared("batch_size", batch_size)
    channels, height, width = images.shape[1:]
    augmentation.check((channels, height, width))
    return _epoch(images, labels, batch_size=batch_size, augmentation=augmentation, rng=keyed_generator(*key))


def _epoch(
    images: Tensor, labels: Tensor, *, batch_size: int, augmentation: Augmentation, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    channels, height, width = images.shape[1:]
    count, device, own = len(images), images.device, sharing().part(batch_size)
    order = moved(torch.randperm(count, generator=rng), device)
    changes = draw_changes(count, (channels, height, width), augmentation, rng).to(device)
    for batch in range(0, count - batch_size + 1, batch_size):
        start, end = batch + own.start, batch + own.stop
        picked = order[start:end]
        yield augment(images[picked], changes.part(start, end), augmentation), labels[picked]
