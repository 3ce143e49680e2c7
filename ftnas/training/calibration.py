"""Running statistics measured anew: batch norm and feature ranges of a net whose weights came from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ftnas.quantization import MOMENTUM, set_momentum


@torch.no_grad()
def recalibrate(
    model: nn.Module, images: Tensor, *, batch_size: int = 256, forward: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Replace the statistics of every layer that ``forward`` passes by their mean over ``images`` ``[N, C, H, W]``.

    Candidates share weights but not statistics, so each is calibrated before it is scored (SPOS, arXiv 1904.00420).
    """
    was_training = model.training
    model.train()
    for index, batch in enumerate(images.split(batch_size)):
        # The first batch replaces what was there, the k-th counts 1/k: a plain mean over batches.
        set_momentum(model, 1 / (index + 1))
        (forward or model)(batch)
    set_momentum(model, MOMENTUM)
    model.train(was_training)
