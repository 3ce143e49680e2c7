"""From the graph of an ONNX file, as plain data, to a net of real layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.importing.mistakes import mistake
from ftnas.importing.network import QUANTISED_ALREADY, ImportedNet, Step, Value, filled, named, values_in
from ftnas.importing.onnx_operations import OPERATIONS
from ftnas.importing.onnx_plan import PREVIOUS, Input, Node, Part, same

QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
             "ConvInteger", "MatMulInteger")  # fmt: skip


@dataclass(frozen=True, eq=False)
class FileNode:
    """One operator: its kind (with its domain, where that is not ONNX's own), name, and the names that it connects."""

    kind: str
    name: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FileGraph:
    """A file's graph.

    Attributes:
        file: for messages.
        nodes: in an order in which they can be computed.
        constants: tensors by name.
        input: the name of the images.
        output: the name of the logits.
        shape: of a batch of images.
    """

    file: Path
    nodes: Sequence[FileNode]
    constants: Mapping[str, Tensor]
    input: str
    output: str
    shape: tuple[int, ...]


@torch.no_grad()
def translate(graph: FileGraph, images: Tensor) -> ImportedNet:
    """Return the net of ``graph``, in evaluation mode, for any number of images.

    Args:
        graph: from a file.
        images: a sample of the graph's shape, on which the net is run as it grows, so that all shapes are known.

    Raises:
        ModelError: an operator cannot be read; it is named.
    """
    made = _Making(graph, {**graph.constants}, {graph.input: images})
    for node in _with_biases(graph):
        try:
            _add(made, node)
        except (ValueError, RuntimeError, TypeError, KeyError, IndexError) as error:
            raise mistake(graph.file, f"{node.kind} ({node.name}): {error}") from error
    last = made.aliases.get(graph.output, graph.output)
    if last not in made.sample:
        raise mistake(graph.file, f"its output {graph.output} does not follow from its input")
    made.net.add_step(Step((graph.output,), same, (Value(last),), {}))
    return made.net.finish()


@dataclass(eq=False)
class _Making:
    """A net in the making.

    Attributes:
        known: constants, given or computed.
        sample: the values of the sample.
        measured: constants that were read off the sample's shapes, and so may hold its number of images.
        aliases: other names of values.
        layers: where the layer of a kind with certain constants is.
    """

    graph: FileGraph
    known: dict[str, Tensor]
    sample: dict[str, Tensor]
    measured: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    net: ImportedNet = field(init=False)

    def __post_init__(self) -> None:
        self.net = ImportedNet(input_name=self.graph.input, output_name=self.graph.output)

    def input(self, name: str) -> Input:
        """Return what a node reads as ``name``."""
        name = self.aliases.get(name, name)
        return self.known[name] if name in self.known else Value(name) if name else None


def _with_biases(graph: FileGraph) -> Iterator[FileNode]:
    """Yield the nodes, a product by a constant matrix with the constant that alone is added to it as third input."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers[graph.output] += 1
    products = {node.outputs[0]: node for node in graph.nodes if _is_layer_product(node, graph)}
    biases = {}
    for node in graph.nodes:
        pair = [name for name in node.inputs if name in products and readers[name] == 1]
        rest = [name for name in node.inputs if name not in pair]
        if node.kind == "Add" and pair and len(rest) == 1 and _is_bias(rest[0], products[pair[0]], graph):
            biases[pair[0]] = (rest[0], node)
    merged = {id(add) for _, add in biases.values()}
    for node in graph.nodes:
        if id(node) in merged:
            continue
        found = biases.get(node.outputs[0]) if node.outputs else None
        yield replace(node, inputs=(*node.inputs, found[0]), outputs=found[1].outputs) if found else node


def _is_layer_product(node: FileNode, graph: FileGraph) -> bool:
    return node.kind == "MatMul" and node.inputs[1] in graph.constants and graph.constants[node.inputs[1]].dim() == 2


def _is_bias(name: str, product: FileNode, graph: FileGraph) -> bool:
    bias = graph.constants.get(name)
    return bias is not None and tuple(bias.shape) == tuple(graph.constants[product.inputs[1]].shape[1:])


def _add(made: _Making, node: FileNode) -> None:
    if node.kind == "Constant":
        made.known[node.outputs[0]] = _constant(node)
        return
    inputs = [made.input(name) for name in node.inputs]
    parts = _parts(made, node, inputs)
    is_constant = not any(isinstance(read, Value) for read in inputs)
    if node.kind == "Shape" or is_constant:
        _compute(made, node, parts)
    elif parts[0].call is same:
        made.aliases[node.outputs[0]] = parts[0].arguments[0].name
    else:
        _follow(made, node, parts)


def _constant(node: FileNode) -> Tensor:
    ((name, value),) = node.attributes.items()
    if name == "value" and isinstance(value, Tensor):
        return value
    if name in ("value_float", "value_floats", "value_int", "value_ints"):
        return torch.tensor(value)
    raise ValueError(f"a constant of kind {name}; allowed are numbers")


def _parts(made: _Making, node: FileNode, inputs: Sequence[Input]) -> list[Part]:
    if node.kind in QUANTISED:
        raise ValueError(QUANTISED_ALREADY)
    if node.kind not in OPERATIONS:
        raise ValueError("ftnas cannot read and quantise this operator")
    missing = [read.name for read in inputs if isinstance(read, Value) and read.name not in made.sample]
    if missing:
        raise ValueError(f"reads {missing[0]}, which nothing before it computes")
    shapes = {name: tuple(value.shape) for name, value in made.sample.items()}
    plan = Node(node.kind, node.attributes, inputs, shapes, made.graph.shape[0], len(node.outputs))
    return OPERATIONS[node.kind](plan)


def _compute(made: _Making, node: FileNode, parts: Sequence[Part]) -> None:
    """Compute a constant at once."""
    result: Any = None
    for part in parts:
        result = part.call(*filled(part.arguments, {PREVIOUS.name: result}))
    made.known.update(named(node.outputs, result))
    if node.kind == "Shape" or made.measured.intersection(node.inputs):
        made.measured.update(node.outputs)


def _follow(made: _Making, node: FileNode, parts: Sequence[Part]) -> None:
    """Add the steps of a node, and compute the sample's values."""
    outputs: tuple[str, ...] = ()
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        read = tuple(_named_constants(made, node, argument, outputs) for argument in part.arguments)
        outputs = node.outputs if is_last else (f"{node.outputs[0]}/{index}",)
        call = _path(made, node, part.call) if isinstance(part.call, nn.Module) else part.call
        made.net.add_step(Step(outputs, call, read, {}))
        given = {value.name: made.sample.get(value.name) for value in values_in(read)}
        constants = {name: made.known[name] for name, value in given.items() if value is None}
        made.sample.update(named(outputs, part.call(*filled(read, {**given, **constants}))))


def _named_constants(made: _Making, node: FileNode, argument: Any, previous: tuple[str, ...]) -> Any:
    """Return ``argument`` of a step with constants by name, which the net then holds."""
    if argument is PREVIOUS:
        return Value(previous[0])
    if isinstance(argument, list):
        return [_named_constants(made, node, part, previous) for part in argument]
    if not isinstance(argument, Tensor):
        return argument
    if measured := made.measured.intersection(node.inputs):
        raise ValueError(f"computes with {', '.join(measured)}, read off the shape of the images")
    names = [name for name in node.inputs if made.known.get(made.aliases.get(name, name)) is argument]
    name = names[0] if names else f"{node.outputs[0]}/constant"
    made.known[name] = argument
    made.net.add_constant(name, argument)
    return Value(name)


def _path(made: _Making, node: FileNode, layer: nn.Module) -> str:
    """Return where the layer of ``node`` is: the one of an earlier node, if that had the same constants."""
    constants = [name for name in node.inputs if made.aliases.get(name, name) in made.known]
    key = f"{node.kind} {constants} {sorted(node.attributes.items(), key=str)}"
    if key not in made.layers:
        made.layers[key] = made.net.add_layer(_layer_name(node, constants), layer)
    return made.layers[key]


def _layer_name(node: FileNode, constants: Sequence[str]) -> str:
    """Return what torch called the layer, if its weight or its node says so, or else the node's name."""
    for name in constants:
        if name.endswith((".weight", ".running_mean")):
            return name.rpartition(".")[0]
    path: list[str] = []
    for part in node.name.strip("/").removesuffix(f"/{node.kind}").split("/"):
        # Torch writes a module in a Sequential as "blocks/blocks.0".
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path) or node.kind
