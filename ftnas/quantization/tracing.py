"""Watching a model compute: what its layers return, and who reads it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ftnas.runtime import evaluating

# Functions that return no tensor and yet use the values of one; all others that return none only ask for its shape.
_USES = ("__setitem__", "item", "numpy", "tolist")


class Span(NamedTuple):
    """Smallest, largest and mean value of what one call returned."""

    low: float
    high: float
    mean: float


@dataclass(slots=True)
class Call:
    """One call of a layer.

    Attributes:
        output: what it returned, while that is alive.
        readers: the watched batch norms that took it as input, and ``None`` for whatever else used it.
    """

    output: weakref.ref[Tensor]
    readers: list[nn.Module | None] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """What a model did with some batches.

    Attributes:
        spans: of the outputs of each watched module, by call, the modules in the order of their first.
        calls: of each watched layer.
        sources: for each watched batch norm and call, the layer whose output it read, if any.
        outputs: the tensors that the model returned for each batch.
    """

    spans: dict[nn.Module, list[Span]] = field(default_factory=dict)
    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    sources: dict[nn.Module, list[nn.Module | None]] = field(default_factory=dict)
    outputs: list[list[Tensor]] = field(default_factory=list)

    def norm_of(self, layer: nn.Module) -> nn.Module | None:
        """Return the batch norm that alone reads every output of ``layer``, and reads nothing else."""
        readers = [call.readers for call in self.calls.get(layer, ())]
        norm = readers[0][0] if readers and readers[0] else None
        alone = norm is not None and all(reader == [norm] for reader in readers)
        return norm if alone and norm is not None and set(self.sources[norm]) == {layer} else None


def trace(
    model: nn.Module, batches: Sequence[Tensor], *, layers: Collection[nn.Module], norms: Collection[nn.Module] = ()
) -> Trace:
    """Run ``model`` on ``batches``, in evaluation mode, and return what ``layers`` and ``norms`` of it did.

    The batches, the modes of the modules and torch's random state are left as they are.
    """
    tracer = _Tracer()
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for layer in layers:
            stack.callback(layer.register_forward_hook(tracer.leave_layer).remove)
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(tracer.enter_norm, with_kwargs=True).remove)
            stack.callback(norm.register_forward_hook(tracer.leave_norm).remove)
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.no_grad())
        for batch in batches:
            with tracer:
                output = model(batch.clone())
            tracer.finish(output)
    return tracer.trace


class _Tracer(TorchFunctionMode):
    """Follows tensors by their identity through every torch function that Python calls."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self._calls: dict[int, tuple[nn.Module, Call]] = {}
        self._is_inside_norm = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._is_inside_norm and (func.__name__ in _USES or any(True for _ in tensors_in(result))):
            self._note_readers([args, kwargs])
        return result

    def leave_layer(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        self._note_span(layer, output)
        call = Call(weakref.ref(output))
        self.trace.calls.setdefault(layer, []).append(call)
        self._calls[id(output)] = layer, call

    def enter_norm(self, norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        (x,) = (*args, *kwargs.values())
        layer, call = self._find(x) or (None, None)
        self.trace.sources.setdefault(norm, []).append(layer)
        if call is not None:
            call.readers.append(norm)
        self._is_inside_norm = True

    def leave_norm(self, norm: nn.Module, args: Any, output: Tensor) -> None:
        self._is_inside_norm = False
        self._note_span(norm, output)

    def finish(self, output: object) -> None:
        """Note what the model returned for a batch: its caller reads that too."""
        self._note_readers(output)
        self._calls.clear()
        self.trace.outputs.append(list(tensors_in(output)))

    def _note_span(self, module: nn.Module, output: Tensor) -> None:
        low, high = output.aminmax()
        span = Span(float(low), float(high), float(output.mean(dtype=torch.float64)))
        self.trace.spans.setdefault(module, []).append(span)

    def _note_readers(self, value: object) -> None:
        for tensor in tensors_in(value):
            found = self._find(tensor)
            if found is not None:
                found[1].readers.append(None)

    def _find(self, tensor: object) -> tuple[nn.Module, Call] | None:
        found = self._calls.get(id(tensor))
        return found if found is not None and found[1].output() is tensor else None


def tensors_in(value: object) -> Iterator[Tensor]:
    """Return the tensors in nested mappings, sequences and dataclasses."""
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, Mapping):
        value = value.values()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, entry.name) for entry in dataclasses.fields(value)]
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        yield from tensors_in(part)
