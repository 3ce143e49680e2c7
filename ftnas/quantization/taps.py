"""The one opening through which faults reach a quantised layer.

A tap is set for the current thread of execution, never on a model, so nothing of the user's is changed,
an exception cannot leave it behind, and two threads may attack one model at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from torch import Tensor, nn

from ftnas.quantization.formats import FixedPoint


class Tap(Protocol):
    """What a quantised layer calls in its forward pass while a tap is active."""

    def weight(self, layer: nn.Module, weight: Tensor, number: FixedPoint) -> Tensor:
        """Return the weight to use instead of ``weight``, which lies on the grid of ``number``."""

    def output(self, layer: nn.Module, features: Tensor, number: FixedPoint) -> None:
        """Change ``features`` ``[N, C, H, W]`` or ``[N, C]``, which lie on the grid of ``number``, in place."""


_TAP: ContextVar[Tap | None] = ContextVar("ftnas_tap", default=None)


def current_tap() -> Tap | None:
    """Return the active tap; ``None`` means a clean pass."""
    return _TAP.get()


@contextmanager
def tapped(tap: Tap) -> Iterator[None]:
    """Let quantised layers call ``tap``. While it is active no running statistic is updated.

    Raises:
        RuntimeError: another tap is active; give all fault models to one ``inject`` instead.
    """
    if _TAP.get() is not None:
        raise RuntimeError("an injection is active already; give all fault models to one inject()")
    token = _TAP.set(tap)
    try:
        yield
    finally:
        _TAP.reset(token)
