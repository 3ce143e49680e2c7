"""What neurons and channels are ranked by: their factor, and where two are equal, how near to failing they came."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def by_channel(values: Tensor) -> Tensor:
    """Return ``[C, bits]``, the mean over positions of ``values`` ``[C, ..., bits]``."""
    return values.reshape(values.shape[0], -1, values.shape[-1]).mean(1)


def ranked(
    changed: Tensor, strain: Tensor, *, images: int, reduce: Callable[[Tensor], Tensor] = lambda values: values
) -> Tensor:
    """Return the scores of neurons ``[C, ...]``, or with ``by_channel`` of channels ``[C]``.

    Args:
        changed: share of ``images`` whose answer a flip changes, ``[C, ..., bits]``.
        strain: share of the nearest class margin that it uses up, same shape.
        images: their number.
        reduce: what becomes of both before the mean over bits.
    """
    # Less than what one image's answer to one bit of one neuron counts, so that the strain decides ties only.
    step = 1 / (images * changed[0].numel())
    scores: Tensor = reduce(changed).double().mean(-1) + 0.5 * step * reduce(strain).double().mean(-1)
    return scores
