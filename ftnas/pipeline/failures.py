"""Trainings that fail: one whose numbers are no longer finite, and one after which a net only guesses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftnas.training import EpochRecord, has_checkpoint, read_checkpoint
from ftnas.untrusted import understood


class Diverged(Exception):
    """A loss, a weight or a range of a net in training is no longer finite."""


@contextmanager
def noticing_divergence(model: nn.Module) -> Iterator[None]:
    """Raise ``Diverged`` where the block leaves numbers in ``model`` that are not finite.

    A quantiser refuses a range that is not a number with a ``ValueError``, so the block may end early for that.
    """
    try:
        yield
    except ValueError:
        if is_finite(model):
            raise
        raise Diverged from None
    if not is_finite(model):
        raise Diverged


def check_finite(*losses: float | None) -> None:
    """Raise ``Diverged`` if a loss is not finite; ``None`` is one that was not computed."""
    if not all(loss is None or math.isfinite(loss) for loss in losses):
        raise Diverged


def recorded(checkpoint: Path) -> list[dict[str, Any]]:
    """Return the epochs that are recorded in ``checkpoint``; none where there is no such file."""
    if not has_checkpoint(checkpoint):
        return []
    with understood(checkpoint):
        return [dict(row) for row in read_checkpoint(checkpoint)[1].get("records", [])]


def diverged_in(records: Sequence[EpochRecord], *, epochs: int) -> int:
    """Return the epoch in which a training of so many ``epochs`` diverged, that may have ended it early."""
    first = (record.epoch for record in records if not math.isfinite(record.loss))
    return next(first, min(len(records), epochs - 1))


def failure(diverged: int | None, clean: float, labels: Tensor) -> str | None:
    """Return how a training failed, in words; ``None`` if the net does better than always naming one class.

    A cell whose nodes are cut off from its inputs trains with a finite loss, and answers every image alike.
    """
    if diverged is not None:
        return f"diverged in training at epoch {diverged}"
    return "learned nothing in training" if clean <= int(labels.bincount().max()) / len(labels) else None


def is_finite(model: nn.Module) -> bool:
    """Return whether every number in ``model`` is one."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
