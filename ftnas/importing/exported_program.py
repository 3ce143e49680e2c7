"""A ``torch.export`` program (``.pt2``) as a net of real layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import ModelError
from ftnas.importing import aten
from ftnas.importing.archive import TYPES, Archive, damaged, read_archive
from ftnas.importing.memory import bounded_results, check_shape
from ftnas.importing.mistakes import mistake, said
from ftnas.importing.network import (
    QUANTISED_ALREADY,
    ImportedNet,
    Step,
    Value,
    check_finite,
    check_same,
    run,
    values_in,
)
from ftnas.runtime import keyed_generator

TOLERANCE = 1e-5  # the same operations, on weights that lie elsewhere in memory

# Nodes that only check sizes.
_CHECKS = ("_assert_tensor_metadata.default", "_assert_scalar.default", "sym_constrain_range_for_size.default")


def load_program(file: Path) -> nn.Module:
    """Return the net in ``file``, in float and evaluation mode, with layers under the names of the original's.

    Nothing is unpickled and no code of the file's runs: of the program, which is plain data, only operations of a fixed
    list are called. The net is checked against the program, worked off operation by operation. A batch size that the
    program has fixed is set free.

    Raises:
        ModelError: the file is damaged, or does what ftnas does not read; the operation and its layer are named.
    """
    archive = read_archive(file)
    check_finite(file, archive.tensors)
    try:
        program = _Program(file, archive)
        check_shape(program.shape)
        with bounded_results():
            net = _Translation(program).net()
            program.check(net)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(file, error) from error
    return net


class _Program:
    """A program: its nodes, and the tensors that they read by name."""

    def __init__(self, file: Path, archive: Archive) -> None:
        self.file = file
        module = archive.program["graph_module"]
        self.nodes = [node for node in module["graph"]["nodes"] if _name(node) not in _CHECKS]
        for node in self.nodes:
            if _name(node).startswith("round") or "quantize" in _name(node):
                raise self.refuse(node, QUANTISED_ALREADY)
        self.values: Mapping[str, Any] = module["graph"]["tensor_values"]
        inputs, outputs = module["signature"]["input_specs"], module["signature"]["output_specs"]
        self.paths = dict(_paths(inputs))
        self.parameters = {name for name, path in self.paths.items() if _is_parameter(inputs, path)}
        self.tensors = {name: archive.tensors[path] for name, path in self.paths.items()}
        self.input = self._one("inputs", [spec["user_input"]["arg"] for spec in inputs if "user_input" in spec])
        self.output = self._one("outputs", [spec.get("user_output", {}).get("arg") for spec in outputs])
        self.shape = self.shape_of(self.input)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of the value ``name`` when the program was exported."""
        return tuple(int(size["as_int"] if "as_int" in size else _hint(size)) for size in self.values[name]["sizes"])

    def has_fixed_batch(self) -> bool:
        """Return whether the program was exported for one number of images."""
        return "as_int" in self.values[self.input]["sizes"][0]

    def refuse(self, node: Mapping[str, Any], why: str) -> ModelError:
        """Return the error of a ``node`` that cannot be read."""
        layer = _layer(node)
        place = f" in {layer}" if layer else ""
        return mistake(self.file, f"{node['target'].removeprefix('torch.ops.')} ({node['name']}{place}): {why}")

    def step(self, node: Mapping[str, Any]) -> Step:
        """Return what ``node`` calls, with names for the values that it reads."""
        name = _name(node)
        if name not in aten.FUNCTIONS and name not in aten.LAYERS:
            raise self.refuse(node, "ftnas cannot read and quantise this operation")
        arguments = {entry["name"]: self._argument(node, entry["arg"]) for entry in node["inputs"]}
        if "dropout" in name and arguments.get("train"):
            raise self.refuse(node, "dropout is in training mode; call model.eval() before torch.export")
        positional = [arguments.pop(entry["name"]) for entry in node["inputs"] if entry.get("kind", 1) != 2]
        return Step(_outputs(node), aten.operation(name), tuple(positional), arguments)

    @torch.no_grad()
    def check(self, net: nn.Module) -> None:
        """Compare ``net`` with the program on random images.

        Raises:
            ModelError: one of them does not run, or they differ.
        """
        images = torch.randn(self.shape, generator=keyed_generator("imported program"))
        values: dict[str, Any] = {**self.tensors, self.input: images.clone()}
        for node in self.nodes:
            step = self.step(node)
            try:
                values.update(run(step, values))
            except (RuntimeError, TypeError, ValueError, LookupError) as error:
                raise self.refuse(node, f"does not run ({said(error)})") from error
        check_same(self.file, net, images, values[self.output], tolerance=TOLERANCE)

    def _argument(self, node: Mapping[str, Any], argument: Mapping[str, Any]) -> Any:
        ((kind, value),) = argument.items()
        if kind not in _ARGUMENTS:
            raise self.refuse(node, f"ftnas cannot read an argument {kind.removeprefix('as_')}")
        return _ARGUMENTS[kind](value)

    def _one(self, what: str, found: Sequence[Any]) -> str:
        if len(found) != 1 or not isinstance(found[0], dict) or "as_tensor" not in found[0]:
            kinds = f"{len(found)}" if len(found) != 1 else "one that is no tensor"
            raise mistake(self.file, f"its {what}: {kinds}; allowed is one tensor, exported after model.eval()")
        return str(found[0]["as_tensor"]["name"])


class _Translation:
    """A net in the making: what is constant is computed at once, what has parameters becomes a layer."""

    def __init__(self, program: _Program) -> None:
        self.program = program
        self.known: dict[str, Tensor] = dict(program.tensors)
        self.trained = set(program.parameters)
        self.layers: dict[str, str] = {}
        self.made = ImportedNet(input_name=program.input, output_name=program.output)

    def net(self) -> ImportedNet:
        """Return the finished net."""
        for node in self.program.nodes:
            name, step = _name(node), self.program.step(node)
            if name in aten.LAYERS:
                self._add_layer(node, step)
            elif self._is_known(step):
                self._compute(step)
            else:
                self._add_function(node, step)
        return self.made.finish()

    def _is_known(self, step: Step) -> bool:
        return all(value.name in self.known for value in values_in([step.arguments, step.options]))

    def _compute(self, step: Step) -> None:
        self.known.update(run(step, self.known))
        if any(value.name in self.trained for value in values_in([step.arguments, step.options])):
            self.trained.update(step.outputs)

    def _add_function(self, node: Mapping[str, Any], step: Step) -> None:
        for value in values_in([step.arguments, step.options]):
            if value.name in self.trained:
                path = self.program.paths.get(value.name, value.name)
                raise self.program.refuse(
                    node, f"reads the parameter {path}; only convolutions, linear layers and batch norms may have any"
                )
            if value.name in self.known:
                self.made.add_constant(value.name, self.known[value.name])
        self.made.add_step(self._freed(node, step))

    def _freed(self, node: Mapping[str, Any], step: Step) -> Step:
        """Return ``step`` for any number of images, where the program has fixed it and gives a new shape."""
        if _name(node) not in aten.SIZED or not self.program.has_fixed_batch():
            return step
        shape = self.program.shape_of(step.outputs[0])
        if shape[:1] != self.program.shape[:1]:
            return step
        return Step(step.outputs, step.call, (step.arguments[0], [-1, *shape[1:]]), {})

    def _add_layer(self, node: Mapping[str, Any], step: Step) -> None:
        """Add the layer that ``node`` is, or call it again where an earlier node has its very parameters."""
        by_name = {entry["name"]: self.program._argument(node, entry["arg"]) for entry in node["inputs"]}
        data, build = aten.LAYERS[_name(node)]
        read = by_name.pop(data)
        if not isinstance(read, Value) or read.name in self.known:
            raise self.program.refuse(node, "reads no features of the net")
        key = f"{node['target']} {sorted(by_name.items(), key=lambda entry: entry[0])}"
        if key not in self.layers:
            self.layers[key] = self.made.add_layer(self._path(node, by_name), self._layer(node, build, by_name, read))
        self.made.add_step(Step(step.outputs[:1], self.layers[key], (read,), {}))

    def _layer(
        self,
        node: Mapping[str, Any],
        build: Callable[[aten.Arguments, int], nn.Module],
        arguments: Mapping[str, Any],
        read: Value,
    ) -> nn.Module:
        tensors = {
            name: self.known.get(value.name) if isinstance(value, Value) else value for name, value in arguments.items()
        }
        missing = [name for name, value in arguments.items() if isinstance(value, Value) and tensors[name] is None]
        if missing:
            raise self.program.refuse(node, f"its {missing[0]} is computed by the net; allowed is a parameter")
        try:
            return build(tensors, len(self.program.shape_of(read.name)))
        except ValueError as error:
            raise self.program.refuse(node, str(error)) from None

    def _path(self, node: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
        """Return where the program's module had the layer: beside its weight, or by the node's own note."""
        for name in ("weight", "running_mean"):
            value = arguments.get(name)
            if isinstance(value, Value) and value.name in self.program.paths:
                return self.program.paths[value.name].removesuffix(f".{name}")
        return _layer(node) or str(node["name"])


_MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}

# What a node's argument may be, by what the JSON calls it.
_ARGUMENTS: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda value: None,
    "as_tensor": lambda value: Value(value["name"]),
    "as_tensors": lambda value: [Value(tensor["name"]) for tensor in value],
    "as_optional_tensor": lambda value: _optional(value),
    "as_optional_tensors": lambda value: [_optional(part) for part in value],
    "as_int": int,
    "as_ints": list,
    "as_float": float,  # "Infinity" is text there
    "as_floats": lambda value: [float(part) for part in value],
    "as_bool": bool,
    "as_bools": list,
    "as_string": str,
    "as_sym_int": lambda value: _size(value),
    "as_sym_ints": lambda value: [_size(part) for part in value],
    "as_scalar_type": TYPES.__getitem__,
    "as_memory_format": _MEMORY.__getitem__,
    "as_layout": lambda value: None,
    "as_device": lambda value: None,
}


def _optional(value: Mapping[str, Any]) -> Value | None:
    return Value(value["as_tensor"]["name"]) if "as_tensor" in value else None


def _size(value: Mapping[str, Any]) -> int | Value:
    return int(value["as_int"]) if "as_int" in value else Value(value["as_name"])


def _hint(size: Mapping[str, Any]) -> int:
    """Return what a free size was when the program was exported."""
    return int(size["as_expr"]["hint"]["as_int"])


def _name(node: Mapping[str, Any]) -> str:
    return str(node["target"]).removeprefix(aten.PREFIX)


def _layer(node: Mapping[str, Any]) -> str:
    """Return the path of the module in which ``node`` was traced."""
    stack = str(node.get("metadata", {}).get("nn_module_stack", ""))
    parts = stack.split(";")[-1].split(",")
    return parts[1] if len(parts) == 3 and not parts[1].startswith("_empty") else ""


def _outputs(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what ``node`` returns: one value, several, or a list of them."""
    names: list[str] = []
    for output in node["outputs"]:
        ((kind, value),) = output.items()
        names += [tensor["name"] for tensor in value] if kind == "as_tensors" else [_output(kind, value)]
    return tuple(names)


def _output(kind: str, value: Mapping[str, Any]) -> str:
    return str(value["as_name"] if kind == "as_sym_int" else value["name"]) if kind != "as_none" else ""


def _paths(inputs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the name of each tensor that the program holds, and its path in the module."""
    for spec in inputs:
        ((kind, entry),) = spec.items()
        if kind in ("parameter", "buffer", "tensor_constant"):
            yield entry["arg"]["name"], entry[f"{kind}_name"]


def _is_parameter(inputs: Sequence[Mapping[str, Any]], path: str) -> bool:
    return any(spec.get("parameter", {}).get("parameter_name") == path for spec in inputs)
