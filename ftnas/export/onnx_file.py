"""A net as an ONNX file, and onnxruntime to run it. Both packages come with the extra ``export``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftnas import __version__
from ftnas.errors import ExportError
from ftnas.export.graph import INPUT, Convolve, Graph, Multiply
from ftnas.export.onnx_nodes import Array, Writer

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 21, 10  # the first with 4-bit and 16-bit integers in DequantizeLinear, and its file format
BATCH = 64


def onnx_model(graph: Graph) -> ModelProto:
    """Return ``graph`` as a checked ONNX model: input ``[batch, C, H, W]``, output ``[batch, classes]``.

    Raises:
        ExportError: onnx is not installed, or its checker refuses the model.
    """
    onnx = _onnx()
    writer = Writer(onnx, graph)
    for node in graph.nodes:
        writer.write(node)
    values = writer.values()
    ends = [values.pop(INPUT)], [values.pop(graph.output)]
    constants = list(writer.constants.values())
    whole = onnx.helper.make_graph(writer.nodes, graph.name, *ends, constants, value_info=list(values.values()))
    model: ModelProto = onnx.helper.make_model(
        whole,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ftnas",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, {**graph.facts, "grids": json.dumps(_grids(graph))})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{graph.name}: ONNX's checker refuses the model: {_first_line(error)}") from error
    return model


def write_onnx(graph: Graph, path: Path) -> None:
    """Write ``graph`` to ``path``."""
    path.write_bytes(onnx_model(graph).SerializeToString())


def run_onnx(path: Path, images: Array, names: Sequence[str] = (), *, optimised: bool = False) -> list[Array]:
    """Return the logits ``[N, classes]`` that onnxruntime computes, and the values ``names`` before them.

    Args:
        path: of the file.
        images: float32 ``[N, C, H, W]``.
        names: of values inside the net that are wanted, too.
        optimised: whether the runtime may rewrite the graph, as it does by default.

    Raises:
        ExportError: onnxruntime is not installed or cannot run the file.
    """
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    try:
        session = runtime.InferenceSession(_with_outputs(path, names), options, providers=["CPUExecutionProvider"])
        parts = [session.run(None, {INPUT: images[i : i + BATCH]}) for i in range(0, len(images), BATCH)]
    except Exception as error:  # the runtime's errors share no class of their own
        raise ExportError(f"{path.name}: onnxruntime cannot run it: {_first_line(error)}") from error
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def runtime_version() -> str:
    """Return what runs ONNX files here."""
    return f"onnxruntime {_onnxruntime().__version__}"


def _with_outputs(path: Path, names: Sequence[str]) -> bytes:
    if not names:
        return path.read_bytes()
    onnx = _onnx()
    model = onnx.load(path)
    inside = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(inside[name] for name in names)
    content: bytes = model.SerializeToString()
    return content


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise _missing("onnx") from None
    return onnx


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise _missing("onnxruntime") from None
    return onnxruntime


def _missing(package: str) -> ExportError:
    return ExportError(f'{package} is not installed; it comes with: pip install "ftnas[export]"')


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _grids(graph: Graph) -> dict[str, Any]:
    """Return the integers that each value and weight may hold, which ONNX's own types do not say."""
    grids = {node.name: node.number for node in graph.nodes if node.number is not None}
    for node in graph.nodes:
        if isinstance(node.operation, Convolve | Multiply):
            grids[f"{node.name}.weight"] = node.operation.weight.number
    return {
        name: {"bits": number.bits, "low": number.low, "high": number.high, "scale": number.scale}
        for name, number in grids.items()
    }
