"""Who reads a tensor, found in autograd's graph: rectifiers, behind operations that only move values, and the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

Node: TypeAlias = Any  # torch.autograd.graph.Node, whose saved values have no types
Ends: TypeAlias = tuple[float, float]  # what a rectifier leaves: it cuts off below the first and above the second
LINEAR: Ends = (-math.inf, math.inf)
Consumers: TypeAlias = Mapping[Node, Sequence[tuple[Node, int]]]  # node -> (who takes its result, as which input)

# Operations that put values elsewhere and change none, as autograd names their nodes.
_MOVES = frozenset(
    f"{name}Backward"
    for name in (
        "Alias", "Cat", "Clone", "ConstantPadNd", "Flip", "IndexSelect", "Permute", "PixelShuffle", "ReshapeAlias",
        "Roll", "Select", "Slice", "Squeeze", "Stack", "T", "Transpose", "UnsafeView", "Unsqueeze", "View",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A rectifier that reads a tensor.

    Attributes:
        node: the rectifier's.
        ends: what it leaves.
        way: from the rectifier back to the tensor: moving operations, and which input of each leads there.
    """

    node: Node
    ends: Ends
    way: tuple[tuple[Node, int], ...]

    def pulled(self, gradient: Tensor) -> Tensor:
        """Return ``gradient``, of the rectifier's input or output, in the places of the tensor that it reads."""
        for node, index in self.way:
            found = node(gradient)
            gradient = found[index] if isinstance(found, tuple) else found
        return gradient


def consumers(root: Node) -> Consumers:
    """Return who takes the results of each node of the graph that ends in ``root``."""
    found: dict[Node, list[tuple[Node, int]]] = {root: []}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for index, (source, _) in enumerate(node.next_functions):
            if source is None:
                continue
            if source not in found:
                found[source] = []
                waiting.append(source)
            found[source].append((node, index))
    return found


def readers(source: Node, graph: Consumers) -> tuple[list[Reader], bool]:
    """Return the rectifiers that read the result of ``source``, and whether anything else reads it, too."""
    found = list(_readers(source, graph, ()))
    return [reader for reader in found if reader is not None], None in found


def _readers(source: Node, graph: Consumers, way: tuple[tuple[Node, int], ...]) -> Iterator[Reader | None]:
    for node, index in graph.get(source, ()):
        ends = _ends(node)
        if ends is not None:
            yield Reader(node, ends, way)
        elif _kind(node) in _MOVES and graph.get(node):
            yield from _readers(node, graph, ((node, index), *way))
        else:
            yield None


def _kind(node: Node) -> str:
    return re.sub(r"\d+$", "", node.name())


def _ends(node: Node) -> Ends | None:
    """Return what the rectifier that made ``node`` leaves; ``None`` for any other operation."""
    kind = _kind(node)
    if kind == "ReluBackward":
        return 0.0, math.inf
    if kind == "HardtanhBackward":
        return node._saved_min_val, node._saved_max_val
    if kind == "ClampBackward":
        low, high = (getattr(node, f"_saved_{end}", None) for end in ("min", "max"))
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return None
        return -math.inf if low is None else low, math.inf if high is None else high
    return None
