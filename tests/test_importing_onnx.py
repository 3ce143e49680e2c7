"""An ONNX file as a net: what onnxruntime computes, with torch's own layers under the names of the original's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from user_nets import user_model

from ftnas.errors import ModelError
from ftnas.faults import quantize
from ftnas.importing.onnx_file import load_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

IMAGES = (3, 9, 7)


def exported(model: nn.Module, images: Tensor, file: Path, *, dynamic: bool) -> Path:
    axes = {"images": {0: "n"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of this exporter's age; the other one needs one more package
        torch.onnx.export(model, (images,), file, dynamo=False, input_names=["images"], dynamic_axes=axes)
    return file


def weight(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def net_of(
    nodes: Sequence[Any],
    constants: dict[str, Any],
    file: Path,
    *,
    output: str = "y",
    shape: Sequence[int | str] = ("n", *IMAGES),
    opset: int = 19,
) -> Path:
    """Write a graph from ``x`` to ``output``."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), file)
    return file


def runs_alike(file: Path, *, shape: tuple[int, ...] = IMAGES, count: int = 5) -> nn.Module:
    """Check that the net of ``file`` computes what onnxruntime does, and return it."""
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    net = load_onnx(file, image_shape=shape)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(net(images).detach(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
    return net


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load_onnx(file, image_shape=IMAGES)
    line = str(refused.value)
    assert line.startswith(f"{file}: ") and "\n" not in line
    return line


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", ["plain_cnn", "residual", "depthwise", "volume"])
def test_a_file_that_torch_wrote_gives_the_models_numbers(name: str, dynamic: bool, tmp_path: Path) -> None:
    model, images = user_model(name)
    net = load_onnx(exported(model, images[:2], tmp_path / "net.onnx", dynamic=dynamic), image_shape=images.shape[1:])
    torch.testing.assert_close(net(images), model(images), rtol=1e-4, atol=1e-5)
    assert dict(net.named_parameters()).keys() <= dict(model.named_parameters()).keys() | {"first.bias", "0.bias"} | {
        "3.bias",
        "5.bias",
    }, "the names of the model's own layers, of which some took a batch norm's offset"
    close = (quantize(net, images)(images) - quantize(model, images)(images)).abs().max()
    assert close < 0.1 * model(images).abs().max()


PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADS = st.lists(st.integers(0, 2), min_size=4, max_size=4)


@settings(max_examples=30)
@given(kernel=PAIR, strides=PAIR, dilations=PAIR, pads=PADS, grouped=st.booleans(), biased=st.booleans())
def test_any_convolution_is_read(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: list[int],
    grouped: bool,
    biased: bool,
    tmp_path_factory: Any,
) -> None:
    constants = {"c.weight": weight(6, 1 if grouped else 3, *kernel), "b": weight(6)}
    node = helper.make_node(
        "Conv", ["x", "c.weight", *(["b"] if biased else [])], ["y"], strides=strides, dilations=dilations, pads=pads,
        group=3 if grouped else 1,
    )  # fmt: skip
    net = runs_alike(net_of([node], constants, tmp_path_factory.mktemp("conv") / "net.onnx"))
    assert isinstance(net.get_submodule("c"), nn.Conv2d)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(["MaxPool", "AveragePool"]),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    ceil=st.booleans(),
    whole=st.booleans(),
)
def test_a_pool_is_read_or_refused(
    kind: str, kernel: int, stride: int, pads: list[int], ceil: bool, whole: bool, tmp_path_factory: Any
) -> None:
    options = {"count_include_pad": int(whole)} if kind == "AveragePool" else {}
    node = helper.make_node(
        kind, ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, ceil_mode=int(ceil), **options
    )
    file = net_of([node], {}, tmp_path_factory.mktemp("pool") / "net.onnx")
    try:
        runs_alike(file)
    except ModelError as error:
        assert pads[:2] != pads[2:] or ceil, "only uneven pads, and last windows that are cut off, may be refused"
        assert "\n" not in str(error)


def node(kind: str, *inputs: str, **attributes: Any) -> Callable[[], list[Any]]:
    return lambda: [helper.make_node(kind, ["x", *inputs], ["y"], **attributes)]


SMALL: dict[str, Any] = {
    "m": weight(7, 4), "bias4": weight(4), "flat": weight(5, 189), "bias5": weight(5), "c": np.float32(0.5),
    "six": np.float32(6), "zero": np.float32(0), "channel": weight(3, 1, 1), "axes23": np.array([2, 3]),
    "pads": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "starts": np.array([1, 0]), "ends": np.array([3, 2**63 - 1]),
    "axes12": np.array([1, 2]), "steps": np.array([1, 2]), "parts": np.array([1, 2]), "first": np.array(0),
    "order": np.array([2, -3]), "variance": np.abs(weight(3)), "mean": weight(3), "gain": weight(3),
    "shape": np.array([0, -1, 3]), "fixed": np.array([2, 189]), "no": np.array(False), "half": np.float32(0.5),
    "last": np.array([-1]),
    "minus3": np.array([-1, 3, 63]), "column": np.array([1]),
}  # fmt: skip


@pytest.mark.parametrize(
    "nodes",
    [
        node("Clip", "zero", "six"),
        node("Clip", "", "c"),
        node("Relu"),
        node("LeakyRelu", alpha=0.2),
        node("Elu"),
        node("HardSwish"),
        node("HardSigmoid"),
        node("Add", "channel"),
        node("Mul", "x"),
        node("Sub", "c"),
        node("Div", "six"),
        node("Sum", "x", "channel"),
        node("Concat", "x", axis=1),
        node("Flatten"),
        node("Reshape", "shape"),
        node("Transpose", perm=[0, 2, 3, 1]),
        node("Identity"),
        node("Dropout"),
        node("Dropout", "half", "no"),
        node("Pad", "pads"),
        node("Pad", "pads", "c"),
        node("Pad", "pads", mode="reflect"),
        node("Pad", "pads", mode="edge"),
        node("Pad", "pads", mode="wrap"),
        node("Reshape", "minus3", allowzero=1),
        node("Slice", "starts", "ends", "axes12", "steps"),
        node("Gather", "first", axis=1),
        node("Gather", "order", axis=1),
        node("Unsqueeze", "column"),
        node("GlobalAveragePool"),
        node("GlobalMaxPool"),
        node("ReduceMean", "axes23", keepdims=0),
        node("ReduceMean", "last"),
        node("MatMul", "m"),
        node("BatchNormalization", "gain", "mean", "mean", "variance", epsilon=1e-3),
        node("AveragePool", kernel_shape=[3, 3], auto_pad="SAME_LOWER", count_include_pad=1),
        node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("AveragePool", kernel_shape=[2, 2], auto_pad="VALID"),
        lambda: [
            helper.make_node("MatMul", ["x", "m"], ["product"]),
            helper.make_node("Add", ["bias4", "product"], ["y"]),
        ],
        lambda: [
            helper.make_node("Split", ["x", "parts"], ["a", "b"], axis=1),
            helper.make_node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        lambda: [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "flat", "bias5"], ["y"], transB=1, alpha=2.0, beta=0.5),
        ],
        lambda: [
            helper.make_node("Constant", [], ["k"], value_float=2.0),
            helper.make_node("Mul", ["x", "k"], ["y"]),
        ],
        lambda: [  # as torch writes y.view(y.size(0), -1)
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
            helper.make_node("Unsqueeze", ["n", "zeroth"], ["n1"]),
            helper.make_node("Concat", ["n1", "minus"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["y"]),
        ],
    ],
)
def test_an_operator_computes_what_onnxruntime_does(nodes: Callable[[], list[Any]], tmp_path: Path) -> None:
    constants = {**SMALL, "zeroth": np.array([0]), "minus": np.array([-1])}
    used = {name for proto in nodes() for name in proto.input}
    file = net_of(nodes(), {name: constants[name] for name in used & constants.keys()}, tmp_path / "net.onnx")
    runs_alike(file)


@pytest.mark.parametrize(
    "nodes",
    [
        node("Clip", min=-0.5, max=1.0),
        node("Pad", pads=[0, 0, 1, 0, 0, 0, 2, 1], value=0.5),
        node("Slice", starts=[1, 0], ends=[3, 5], axes=[1, 2]),
        node("ReduceMean", axes=[2, 3], keepdims=0),
        node("Unsqueeze", axes=[1]),
        lambda: [
            helper.make_node("Split", ["x"], ["a", "b"], axis=1, split=[1, 2]),
            helper.make_node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        node("BatchNormalization", "gain", "mean", "mean", "variance"),
    ],
)
def test_what_was_an_attribute_in_old_opsets_is_read(nodes: Callable[[], list[Any]], tmp_path: Path) -> None:
    used = {name: SMALL[name] for proto in nodes() for name in proto.input if name in SMALL}
    runs_alike(net_of(nodes(), used, tmp_path / "net.onnx", opset=9))


def test_a_product_and_its_bias_become_one_linear_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["h"]),
        helper.make_node("MatMul", ["h", "w2"], ["q"], name="/head/last/MatMul"),
        helper.make_node("Add", ["q", "h2"], ["r"]),
        helper.make_node("Add", ["r", "q"], ["y"]),
    ]
    constants = {"fc.weight": weight(7, 4), "b": weight(4), "w2": weight(4, 4), "h2": weight(4)}
    net = runs_alike(net_of(nodes, constants, tmp_path / "net.onnx"))
    assert net.get_submodule("fc").bias is not None
    assert net.get_submodule("head.last").bias is None, "what is read twice is no layer's own result"


def test_a_batch_size_that_the_file_fixes_is_set_free(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "fixed"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    constants = {"fixed": np.array([2, 189]), "w": weight(189, 5)}
    file = net_of(nodes, constants, tmp_path / "net.onnx", shape=(2, *IMAGES))
    assert load_onnx(file, image_shape=IMAGES)(torch.ones(7, *IMAGES)).shape == (7, 5)


def test_weights_in_a_file_beside_are_found(tmp_path: Path) -> None:
    file = net_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight(64, 3, 3, 3)}, tmp_path / "net.onnx")
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="net.data", size_threshold=0)
    runs_alike(file)
    (tmp_path / "net.data").unlink()
    assert "is not a whole ONNX file" in refusal(file)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (node("LSTM", "w", "w"), ["LSTM (LSTM_0)", "cannot read and quantise this operator"]),
        (node("Conv", "x"), ["Conv (here)", "its weight is computed by the net"]),
        (node("QuantizeLinear", "c", "byte"), ["QuantizeLinear (here)", "quantised already"]),
        (node("Reshape", "all"), ["Reshape (here)", "one that keeps them apart"]),
        (node("ReduceMean", "c64"), ["ReduceMean (here)", "over the images"]),
        (node("MaxPool", kernel_shape=[40, 40]), ["MaxPool (here)"]),
        (node("Odd", domain="com.example"), ["com.example.Odd (here)"]),
        (node("MatMul", "x"), ["MatMul (here)", "its matrix is computed by the net"]),
    ],
)
def test_an_operator_that_cannot_be_read_is_named_with_its_node(
    nodes: Callable[[], list[Any]], words: list[str], tmp_path: Path
) -> None:
    (proto,) = nodes()
    proto.name = "" if proto.op_type == "LSTM" else "here"
    constants = {
        "w": weight(1, 4, 4),
        "c": np.float32(1),
        "byte": np.int8(0),
        "all": np.array([-1]),
        "c64": np.array([0]),
    }
    used = {name: value for name, value in constants.items() if name in proto.input}
    graph = helper.make_graph(
        [proto], "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in used.items()],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=10), tmp_path / "net.onnx")
    line = refusal(tmp_path / "net.onnx")
    assert [word for word in words if word not in line] == []


def test_names_out_of_a_file_cannot_break_the_line_or_the_terminal(tmp_path: Path) -> None:
    proto = helper.make_node("Odd\n\x1b[2J", ["x"], ["y"], name="here\r\x07")
    line = refusal(net_of([proto], {}, tmp_path / "net.onnx"))
    assert "Odd ?[2J (here ?): ftnas cannot read" in line
    assert line.isprintable()


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"\x08\x07", bytes(range(256)), b"PK\x03\x04"])
def test_a_file_that_is_no_onnx_is_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert "is not a whole ONNX file" in refusal(tmp_path / "net.onnx")


@settings(max_examples=25)
@given(kept=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(kept: float, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("cut")
    content = net_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight(4, 3, 3, 3)}, folder / "n"
    ).read_bytes()
    (folder / "net.onnx").write_bytes(content[: int(kept * len(content))])
    refusal(folder / "net.onnx")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "net.onnx")


def test_an_input_that_takes_no_images_is_named(tmp_path: Path) -> None:
    file = net_of([helper.make_node("Relu", ["x"], ["y"])], {}, tmp_path / "net.onnx", shape=("n", 12))
    assert "input x has type 1 and shape [0, 12]; needed is float32 [N, 3, 9, 7]" in refusal(file)


@pytest.mark.parametrize("opset", [6, 99])
def test_an_opset_that_is_not_read_is_named(opset: int, tmp_path: Path) -> None:
    file = net_of([helper.make_node("Relu", ["x"], ["y"])], {}, tmp_path / "net.onnx", opset=opset)
    line = refusal(file)
    assert f"opset {opset}" in line or "is not a whole ONNX file" in line


def test_without_the_packages_the_command_that_installs_them_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModelError, match=r'pip install "ftnas\[export\]"'):
        load_onnx(tmp_path / "net.onnx", image_shape=IMAGES)


def test_a_wrong_reading_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftnas.importing import onnx_operations

    file = net_of([helper.make_node("Relu", ["x"], ["y"])], {}, tmp_path / "net.onnx")
    monkeypatch.setitem(onnx_operations.OPERATIONS, "Relu", onnx_operations.OPERATIONS["Neg"])
    assert "was read as a net that computes something else" in refusal(file)
