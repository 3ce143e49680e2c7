"""A net that was read from a file: real layers, called step by step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftnas.importing.mistakes import mistake, said

QUANTISED_ALREADY = "the net is quantised already; give the float net, or what ftnas exported as safetensors"


class Value(NamedTuple):
    """What a step reads: the result of an earlier one, or a constant, by name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call.

    Attributes:
        outputs: names of the values that it returns; of several, one without a name is not kept.
        call: a function, or the path of a module.
        arguments: plain data, with a ``Value`` wherever a tensor or a size is read.
        options: the same by keyword.
    """

    outputs: tuple[str, ...]
    call: Callable[..., Any] | str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


class Branch(nn.Module):
    """Modules of the original net between the whole and its layers; only its name is kept."""


class ImportedNet(nn.Module):
    """Layers and the steps in which they are called: ``[N, C, H, W] -> [N, classes]``.

    Its steps are data, worked off one by one: no code is generated from what the file says.
    """

    def __init__(self, *, input_name: str, output_name: str) -> None:
        super().__init__()
        # Underlined, so that no layer of the user's has such a name.
        self._input_name = input_name
        self._output_name = output_name
        self._steps: list[Step] = []
        self._last_reads: list[tuple[str, ...]] = []
        self._constants: dict[str, str] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Return what the file's net returns for ``images``."""
        values: dict[str, Any] = {name: self.get_buffer(path) for name, path in self._constants.items()}
        values[self._input_name] = images
        for step, last in zip(self._steps, self._last_reads, strict=True):
            call = self.get_submodule(step.call) if isinstance(step.call, str) else step.call
            result = call(*filled(step.arguments, values), **filled(step.options, values))
            for name in last:
                del values[name]
            values.update(named(step.outputs, result))
        logits: Tensor = values[self._output_name]
        return logits

    def add_step(self, step: Step) -> None:
        """Let ``step`` follow those that are there."""
        self._steps.append(step)

    def add_layer(self, path: str, layer: nn.Module) -> str:
        """Put ``layer`` at ``path``, or beside it where that is taken; return where it is."""
        *parents, own = [_allowed(part) for part in path.split(".")]
        home: nn.Module = self
        path = ""
        for part in parents:
            while part in home._modules and not isinstance(home._modules[part], Branch):
                part += "_"  # a layer is there, and nothing goes into that
            if part not in home._modules:
                home.add_module(part, Branch())
            home, path = home.get_submodule(part), f"{path}{part}."
        name, number = own, 1
        while name in home._modules:
            name, number = f"{own}_{number}", number + 1
        home.add_module(name, layer)
        return path + name

    def add_constant(self, name: str, value: Tensor) -> None:
        """Keep ``value`` for the steps that read ``name``; once is enough."""
        if name in self._constants:
            return
        path = f"_constant_{len(self._constants)}"
        self.register_buffer(path, value.clone())
        self._constants[name] = path

    def finish(self) -> ImportedNet:
        """Note which values no later step reads, so that they are let go, and return the net in evaluation mode."""
        kept = {self._output_name, *self._constants}
        last_reads: list[tuple[str, ...]] = []
        for step in reversed(self._steps):
            read = {value.name for value in values_in([step.arguments, step.options])}
            last_reads.append(tuple(sorted(read - kept)))
            kept |= read
        self._last_reads = last_reads[::-1]
        return self.eval()


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are infinite or not a number.

    Raises:
        ModelError: one of ``tensors`` is; it is named.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise mistake(file, f"{name} holds values that are infinite or not a number")


@torch.no_grad()
def check_same(file: Path, net: nn.Module, images: Tensor, expected: Tensor, *, tolerance: float) -> None:
    """Compare what ``net`` returns for ``images`` with what the file's own operations do.

    It is given them twice, since it takes any number, and they must not change each other's results.

    Raises:
        ModelError: it does not run, or the two differ by more than ``tolerance`` of the largest value, at least 1.
    """
    expected = torch.cat([expected, expected])
    try:
        found = net(torch.cat([images, images]))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise mistake(file, f"the net does not run ({said(error)})") from error
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0, atol=tolerance * max(largest, 1.0)):
        raise mistake(file, "was read as a net that computes something else; that is a mistake of ftnas")


def run(step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of a ``step`` that calls a function, by name."""
    assert not isinstance(step.call, str)
    return named(step.outputs, step.call(*filled(step.arguments, values), **filled(step.options, values)))


def named(outputs: tuple[str, ...], result: Any) -> dict[str, Any]:
    """Return ``result`` under the names of a step's ``outputs``."""
    if len(outputs) == 1:
        return {outputs[0]: result}
    return {name: value for name, value in zip(outputs, result, strict=False) if name}


def filled(argument: Any, values: Mapping[str, Any]) -> Any:
    """Return ``argument`` with ``values`` in the places of their names."""
    if isinstance(argument, Value):
        return values[argument.name]
    if isinstance(argument, Mapping):
        return {key: filled(part, values) for key, part in argument.items()}
    if isinstance(argument, list | tuple):
        return type(argument)(filled(part, values) for part in argument)
    return argument


def values_in(argument: Any) -> Iterator[Value]:
    """Return the values that stand in ``argument``."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, Mapping):
        yield from values_in(list(argument.values()))
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from values_in(part)


def _allowed(part: str) -> str:
    """Return ``part`` of a path as a name that a module can have."""
    word = re.sub(r"\W", "_", part) or "_"
    return f"{word}_" if word.startswith("_") or hasattr(nn.Module, word) or word == "training" else word
