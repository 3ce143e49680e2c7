"""Fault-tolerant neural architecture search on PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftnas.consent import allow_code as allow_code

if TYPE_CHECKING:
    from ftnas.pipeline.exports import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Not at the top: ``import ftnas`` must not wait for torch.
    if name == "load":
        from ftnas.pipeline.exports import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
