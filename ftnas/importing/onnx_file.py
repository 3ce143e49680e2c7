"""An ONNX file as a net of real layers: parsed by ``onnx``, and checked against ``onnxruntime``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import ModelError
from ftnas.files import replacing
from ftnas.importing.memory import bounded_results, check_shape
from ftnas.importing.mistakes import mistake, said
from ftnas.importing.network import check_finite, check_same
from ftnas.importing.onnx_translation import FileGraph, FileNode, translate
from ftnas.runtime import keyed_generator
from ftnas.untrusted import inside

# Convolutions of another library add in another order.
TOLERANCE = 1e-4
SAMPLE_BATCH = 3  # where the file leaves it open: no size that a net is likely to have elsewhere
OPSETS = range(7, 27)
FLOAT = 1


def load_onnx(file: Path, *, image_shape: Sequence[int]) -> nn.Module:
    """Return the net in ``file``, in float and evaluation mode, for any number of images.

    Convolutions, linear layers and batch norms are torch's own, named after their weights or nodes. Where onnxruntime
    is installed, the net is compared with what that computes.

    Args:
        file: whose graph has one input, images ``[N, C, H, W]``, and one output.
        image_shape: ``[C, H, W]``, for what the file leaves open.

    Raises:
        ModelError: the file is damaged or no ONNX file, or has an operator that ftnas does not read; it is named.
    """
    model = _parse(file)
    try:
        graph = _read(file, model, image_shape)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _not_whole(file, error) from None
    check_finite(file, graph.constants)
    images = torch.randn(graph.shape, generator=keyed_generator("imported ONNX"))
    try:
        with bounded_results():
            net = translate(graph, images)
            expected = _run(graph, model, images)
            if expected is not None:
                check_same(file, net, images, expected, tolerance=TOLERANCE)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _not_whole(file, error) from None
    return net


def write_whole(file: Path, target: Path) -> None:
    """Write the model in ``file`` to ``target``, with the weights that lie in other files.

    Raises:
        ModelError: the file is damaged, or more than one ONNX file can hold.
    """
    try:
        content = _parse(file).SerializeToString()
    except ValueError as error:
        raise mistake(file, f"does not fit into one file ({said(error)})") from None
    with replacing(target) as part:
        part.write_bytes(content)


def _onnx() -> ModuleType:
    try:
        import onnx
    except ImportError:
        raise ModelError('ONNX files need more packages: pip install "ftnas[export]"') from None
    return onnx


def _parse(file: Path) -> Any:
    """Return the model in ``file``."""
    onnx = _onnx()
    if not file.is_file():
        raise mistake(file, "is not a file" if file.exists() else "is not there")
    try:
        model = onnx.load(file, load_external_data=False)
        _check_beside(file, model)
        onnx.load_external_data_for_model(model, str(file.parent))
        if not model.graph.node:
            raise ValueError("it has no operators")
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # whatever the parser finds wrong with somebody's bytes
        raise _not_whole(file, error) from None


def _check_beside(file: Path, model: Any) -> None:
    """Refuse weights in files that are not in the folder of ``file``, links followed, or that are read many times."""
    kept, sizes = 0, {}
    for tensor in _external(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        beside = inside(file.parent, file.parent / entries.get("location", ""))
        if not beside.is_file():
            raise ValueError(f"{tensor.name} is in {beside.name}, which is no file")
        sizes[beside] = beside.stat().st_size
        kept += int(entries.get("length", sizes[beside]))
    if kept > 2 * sum(sizes.values()):
        raise ValueError("its tensors hold more than the files beside it")


def _external(message: Any) -> Iterator[Any]:
    """Yield the tensors anywhere in ``message`` whose values are in another file."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if isinstance(value, Sequence) or hasattr(value, "add") else [value]:
            if field.message_type.name == "TensorProto" and part.data_location == 1:
                yield part
            yield from _external(part)


def _not_whole(file: Path, error: Exception) -> ModelError:
    return mistake(file, f"is not a whole ONNX file ({said(error)})")


def _read(file: Path, model: Any, image_shape: Sequence[int]) -> FileGraph:
    """Return the graph of ``model`` as plain data."""
    _check_opset(file, model)
    graph = model.graph
    constants = {tensor.name: _tensor(file, tensor.name, tensor) for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    for what, found in (("inputs", inputs), ("outputs", graph.output)):
        if len(found) != 1:
            raise mistake(file, f"has {len(found)} {what}; allowed is one")
    nodes = [_node(file, index, proto) for index, proto in enumerate(graph.node)]
    return FileGraph(file, nodes, constants, inputs[0].name, graph.output[0].name, _shape(file, inputs[0], image_shape))


def _check_opset(file: Path, model: Any) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or versions[0] not in OPSETS:
        found = versions[0] if versions else "none"
        raise mistake(file, f"has ONNX opset {found}; allowed are {OPSETS[0]} to {OPSETS[-1]}")


def _shape(file: Path, entry: Any, image_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a batch, with ``image_shape`` where the file leaves sizes open."""
    tensor = entry.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else 0 for size in tensor.shape.dim]
    if tensor.elem_type != FLOAT or len(sizes) != len(image_shape) + 1:
        needed = f"float32 [N, {', '.join(map(str, image_shape))}]"
        found = f"has type {tensor.elem_type} and shape {sizes}"
        raise mistake(file, f"input {entry.name} {found}; needed is {needed}")
    shape = (sizes[0] or SAMPLE_BATCH, *(size or own for size, own in zip(sizes[1:], image_shape, strict=True)))
    check_shape(shape)
    return shape


def _node(file: Path, index: int, proto: Any) -> FileNode:
    kind = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    attributes = {attribute.name: _attribute(file, attribute) for attribute in proto.attribute}
    name = proto.name or f"{proto.op_type}_{index}"
    return FileNode(kind, name, attributes, tuple(proto.input), tuple(proto.output))


def _attribute(file: Path, attribute: Any) -> Any:
    onnx = _onnx()
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(file, attribute.name, value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _tensor(file: Path, name: str, tensor: Any) -> Tensor:
    array = _onnx().numpy_helper.to_array(tensor)
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        raise mistake(file, f"{name or 'a constant'} has type {array.dtype}, which is not read") from None


def _run(graph: FileGraph, model: Any, images: Tensor) -> Tensor | None:
    """Return what onnxruntime computes, or ``None`` where it is not installed.

    It is given the ``model`` as it was read and checked, and looks for no files of its own.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where it tells of its own troubles
            content = model.SerializeToString()
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            (logits,) = session.run(None, {graph.input: images.numpy()})
    except Exception as error:  # its errors share no class of their own
        raise mistake(graph.file, f"onnxruntime cannot run it ({said(error)})") from None
    return torch.from_numpy(logits)
