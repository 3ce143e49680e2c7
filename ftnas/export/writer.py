"""The graph as it grows while the steps of a traced net are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Step
from torch.fx.node import map_arg

from ftnas.errors import ExportError
from ftnas.export.graph import INPUT, Node, Operation, Zeros
from ftnas.export.layers import Exported

Shape = tuple[int, ...]

# Nets are traced with two images, so that the batch is told from a dimension of size one.
BATCH = 2


@dataclass(frozen=True, slots=True)
class Traced:
    """A value of the graph: its name, and its shape without the batch."""

    name: str
    shape: Shape


class Writer:
    """Nodes written so far, and which value each traced step has.

    Args:
        layers: what each call of a quantised layer computes.
        constants: parameters and buffers by the name of their placeholder.
    """

    def __init__(self, *, layers: Sequence[Exported], constants: Mapping[str, Tensor]) -> None:
        self.nodes: list[Node] = []
        self.values: dict[Step, Traced] = {}
        self._layers = layers
        self._constants: dict[str, Any] = dict(constants)
        self._names = {INPUT}

    def write_layer(self, step: Step) -> None:
        """Write the node of a quantised layer."""
        terms, call, _ = step.args
        layer = self._layers[int(call)]  # type: ignore[arg-type]
        names = _names([self.value(step, term) for term in terms])  # type: ignore[union-attr]
        shape = self.shape(step)
        for operation in (*layer.operations, *layer.stored):
            on_grid = operation is layer.operations[-1] or operation in layer.stored
            number = layer.number if on_grid else None
            names = _names(
                [self._append(step, Node(self._name(layer.path), operation, names, shape, number, layer.path))]
            )

    def write(self, step: Step, operation: Operation, *inputs: Traced, shape: Shape | None = None) -> Traced:
        """Write the node of ``operation``, let it be the value of ``step``, and return it."""
        path = _path(step)
        name = self._name(f"{path}.{type(operation).__name__.lower()}")
        whole = self.shape(step) if shape is None else shape
        return self._append(step, Node(name, operation, _names(inputs), whole, None, path))

    def fold(self, step: Step) -> bool:
        """Compute ``step`` where no image takes part in it, and return whether that is so."""
        held = all(source.name in self._constants for source in step.all_input_nodes)
        if held and callable(step.target):
            args, kwargs = map_arg((step.args, step.kwargs), lambda source: self._constants[source.name])
            self._constants[step.name] = step.target(*args, **kwargs)
        return held

    def value(self, step: Step, argument: Any) -> Traced:
        """Return the value that ``argument`` of ``step`` stands for."""
        if isinstance(argument, Step) and argument in self.values:
            return self.values[argument]
        constant = self.constant(argument)
        if not isinstance(argument, Step) or constant is None or constant.any():
            raise self.refusal(step, f"takes {argument}, which is no feature map,")
        return self.write(argument, Zeros())

    def constant(self, argument: Any) -> Tensor | None:
        """Return the numbers that ``argument`` holds; ``None`` where those depend on the image."""
        if isinstance(argument, int | float):
            return torch.tensor(float(argument))
        return self._constants.get(argument.name) if isinstance(argument, Step) else None

    def shape(self, step: Step) -> Shape:
        """Return the shape of the (first) result of ``step`` without the batch, which must be its first dimension."""
        result = step.meta["val"]
        result = result[0] if isinstance(result, list | tuple) else result
        if not isinstance(result, Tensor) or not result.dim() or result.shape[0] != BATCH:
            raise self.refusal(step, "does not keep images apart")
        if result.dtype != torch.float32:
            raise self.refusal(step, f"computes {result.dtype}")
        return tuple(int(size) for size in result.shape[1:])

    def refusal(self, step: Step, why: str) -> ExportError:
        """Return the error for a ``step`` that cannot be exported."""
        return ExportError(f"{_path(step) or 'the model'}: {step.target} {why} and cannot be exported")

    def _append(self, step: Step, node: Node) -> Traced:
        self.nodes.append(node)
        self.values[step] = Traced(node.name, node.shape)
        return self.values[step]

    def _name(self, path: str) -> str:
        base = re.sub(r"\W", "_", path.strip("."), flags=re.ASCII) or "layer"
        base = base if base[0].isalpha() else f"layer_{base}"
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name


def _names(values: Sequence[Traced]) -> tuple[str, ...]:
    return tuple(value.name for value in values)


def _path(step: Step) -> str:
    """Return the path of the module nearest to ``step``."""
    stack = list(step.meta.get("nn_module_stack", {}).values())
    path: str = stack[-1][0] if stack else ""
    return path
