"""What one ONNX operator reads, and what of torch it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from ftnas.importing.network import Value

Input: TypeAlias = Tensor | Value | None


class Part(NamedTuple):
    """A layer or function, and what it is called with; later parts of a node read ``PREVIOUS``."""

    call: nn.Module | Callable[..., Any]
    arguments: tuple[Any, ...]


PREVIOUS = Value("")


@dataclass(frozen=True, eq=False)
class Node:
    """One operator of a file.

    Attributes:
        attributes: as numbers, texts, lists and tensors.
        inputs: a tensor where it is constant, the name of a value otherwise; ``None`` where left out.
        shapes: of the values among the inputs, for a batch of ``batch`` images.
        outputs: how many.
    """

    kind: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Input]
    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    outputs: int

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def input(self, index: int) -> Input:
        """Return an input, ``None`` where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int, what: str) -> Tensor:
        """Return an input that must be constant."""
        found = self.input(index)
        if not isinstance(found, Tensor):
            raise ValueError(f"its {what} is {'missing' if found is None else 'computed by the net'}, not a constant")
        return found

    def integers(self, name: str, index: int) -> list[int] | None:
        """Return integers that were an attribute in old opsets and are an input in new ones."""
        if name in self.attributes:
            return list(self.attributes[name])
        return None if self.input(index) is None else [int(i) for i in self.constant(index, name).flatten().tolist()]

    def number(self, name: str, index: int) -> float | None:
        """Return a number that was an attribute in old opsets and is an input in new ones."""
        if name in self.attributes:
            return float(self.attributes[name])
        return None if self.input(index) is None else float(self.constant(index, name))

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of an input."""
        found = self.input(index)
        return tuple(found.shape) if isinstance(found, Tensor) else self.shapes[found.name] if found else ()


def same(x: Tensor) -> Tensor:
    """Return ``x``; a reader need not call this."""
    return x
