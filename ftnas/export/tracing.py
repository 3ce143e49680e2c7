"""From a quantised module to the graph that exporters read."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node as Step

from ftnas.errors import ExportError
from ftnas.export.aten import OPERATORS
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import INPUT, Graph
from ftnas.export.layers import LAYER, Called, lasting_faults, put_stand_ins_, weights_of_chip
from ftnas.export.writer import BATCH, Traced, Writer
from ftnas.faults import Fault
from ftnas.quantization import quantized_layers


def graph_of(
    model: nn.Module,
    example: Tensor,
    *,
    name: str,
    faults: Fault | str | Sequence[Fault | str] = (),
    chip: int = 0,
    study: str = "campaign",
    facts: Mapping[str, str] | None = None,
) -> Graph:
    """Return ``model`` as a graph; it is left as it is.

    Args:
        model: a derived net, a baseline or what ``faults.quantize`` returned, its ranges known; it is read as in
            evaluation mode.
        example: one image ``[1, C, H, W]``; of its values nothing is kept.
        name: of the net.
        faults: permanent faults of weights; the graph then holds the weights of a faulty chip.
        chip: its number.
        study: its study, as campaigns name theirs.
        facts: what files are to say of the net.

    Raises:
        ExportError: an operation or a layer cannot be exported, or the faults are none that weights can hold.
    """
    if not quantized_layers(model):
        raise ExportError(f"{name}: {type(model).__name__} has no quantised layer; quantise it first")
    lasting = lasting_faults(faults)
    program, calls = _exported(model, example, name)
    weights = weights_of_chip(model, calls, faults=lasting, chip=chip, study=study)
    writer = Writer(layers=weights, constants=_constants(program))
    return _graph(program, writer, name=name, facts=facts or {})


@torch.no_grad()
def run_float(graph: Graph, images: Tensor) -> Tensor:
    """Return the logits ``[N, classes]`` that ``graph`` gives for ``images`` ``[N, ...]``, computed in float32."""
    logits: Tensor = FrozenNet(graph)(images)
    return logits


def _exported(model: nn.Module, example: Tensor, name: str) -> tuple[torch.export.ExportedProgram, list[Called]]:
    """Return the program of ``model`` with each quantised layer as one operation, and the layers it calls."""
    calls: list[Called] = []
    twin = put_stand_ins_(copy.deepcopy(model).cpu().eval().requires_grad_(False), calls)
    twin.register_forward_hook(lambda _, images, logits: _check_logits(logits, name))
    images = example[:1].detach().cpu().expand(BATCH, *example.shape[1:]).clone()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export warns of its own parts
            program = torch.export.export(twin, (images,), strict=False)
            # An empty table decomposes nothing; what changes tensors in place becomes functional, and what is read
            # by nobody goes.
            return program.run_decompositions({}), calls
    except ExportError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{name}: torch.export cannot trace it: {first}") from error


def _check_logits(logits: object, name: str) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != BATCH:
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ExportError(f"{name}: must return one tensor of logits [N, classes] to be exported, returns {found}")


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Return parameters, buffers and constants by the name of the placeholder that stands for them."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    held = {**program.state_dict, **program.constants}
    return {place: held[target].detach() for place, target in names.items()}


def _graph(program: torch.export.ExportedProgram, writer: Writer, *, name: str, facts: Mapping[str, str]) -> Graph:
    for step in program.graph.nodes:
        if step.op == "placeholder" and step.name in program.graph_signature.user_inputs:
            writer.values[step] = images = Traced(INPUT, writer.shape(step))
        elif step.op == "call_function":
            _write(writer, step)
        elif step.op == "output":
            logits = writer.value(step, step.args[0][0])
    return Graph(name, images.shape, tuple(writer.nodes), logits.name, dict(facts))


def _write(writer: Writer, step: Step) -> None:
    if step.target is LAYER:
        writer.write_layer(step)
    elif not writer.fold(step):
        write = OPERATORS.get(str(step.target))
        if write is None:
            raise writer.refusal(step, "is an operation that the graph has not")
        write(writer, step)
