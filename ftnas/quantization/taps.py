"""The one opening through which faults reach a quantised layer.

A tap is set for the current thread of execution, never on a model, so nothing of the user's is changed,
an exception cannot leave it behind, and two threads may attack one model at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ftnas.quantization.formats import Integers, Number

# Elements of a tensor in logical order that may have changed; ``None`` says that any may have.
Touched: TypeAlias = Integers | None


class Tap(Protocol):
    """What a quantised layer calls in its forward pass while a tap is active."""

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return the weight to use instead of ``weight``, which holds values of ``number``; it is not to be changed."""

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> Touched:
        """Change ``features`` ``[N, C, H, W]`` or ``[N, C]``, which are values of ``number``, in place.

        Returns:
            Which elements may have changed, or ``None``.
        """


class Unchanging:
    """A tap that changes nothing: under it layers compute all that faults could hit, twice what would be the same."""

    computes_all = True

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``."""
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Leave ``features`` alone."""


_TAP: ContextVar[Tap | None] = ContextVar("ftnas_tap", default=None)


def current_tap() -> Tap | None:
    """Return the active tap; ``None`` means a clean pass, as compiled ones are: no graph reads a ``ContextVar``."""
    return None if torch.compiler.is_compiling() else _TAP.get()


def statistics_run() -> bool:
    """Return whether running statistics are updated: in a clean pass, or under a tap that only watches one.

    Such a tap has an attribute ``observes`` that is true; most have none.
    """
    tap = current_tap()
    return tap is None or bool(getattr(tap, "observes", False))


def all_is_computed() -> bool:
    """Return whether layers compute what they know already: the active tap has an attribute ``computes_all``."""
    return bool(getattr(current_tap(), "computes_all", False))


def skipped(layer: nn.Module) -> Tensor | None:
    """Return the output that the active tap knows ``layer`` to have, so that it need not compute.

    A tap may have a method ``skip(layer)`` that returns such an output or ``None``; most have none.
    """
    skip: Callable[[nn.Module], Tensor | None] | None = getattr(current_tap(), "skip", None)
    return None if skip is None else skip(layer)


@contextmanager
def tapped(tap: Tap) -> Iterator[None]:
    """Let quantised layers call ``tap``. While it is active running statistics rest (see ``statistics_run``).

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
