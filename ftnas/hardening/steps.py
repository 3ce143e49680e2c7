"""Long work done in steps, so that it can be watched, ended and gone on with."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Steps:
    """How the steps of an analysis are done: this way each is computed, nothing is kept, and nobody is told."""

    def expect(self, count: int) -> None:
        """Hear that ``count`` steps are to come."""

    def done(self, name: str, work: Callable[[], Tensor]) -> Tensor:
        """Return what the step ``name`` gives, which ``work`` computes; no two steps have one name."""
        return work()
