"""The C program computes what the integer reference does, to the last bit, with nothing but integers."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_nets import everything, everything_graph, pixels, quantized_resnet
from hypothesis import given
from hypothesis import strategies as st
from small_nets import digits, trained
from torch import Tensor, nn
from user_nets import user_model

from ftnas.errors import ExportError
from ftnas.export import c_program
from ftnas.export.c_memory import plan_memory
from ftnas.export.c_program import CProof, compile_program, export_c, run_program, write_c
from ftnas.export.c_source import c_name, c_sources, table_bytes
from ftnas.export.graph import INPUT, Add
from ftnas.export.integer import IntegerNet, IntegerNode, image_codes, run, run_values
from ftnas.export.lowering import integer_net
from ftnas.export.tracing import graph_of
from ftnas.faults import quantize

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")


def proof(net: nn.Module, images: Tensor, folder: Path, *, calibration: Tensor | None = None, **faults: Any) -> CProof:
    with torch.no_grad():
        logits = net(images).numpy()
    graph = graph_of(net, images[:1], name="net", **faults)
    seen = images if calibration is None else calibration
    return export_c(graph, folder, calibration=seen.numpy(), images=images.numpy(), logits=logits)


def proof_of_everything(folder: Path) -> CProof:
    net, images = everything()
    with torch.no_grad():
        logits = net(images).numpy()
    return export_c(everything_graph(), folder, calibration=images.numpy(), images=images.numpy(), logits=logits)


def lowered_everything() -> IntegerNet:
    return integer_net(everything_graph(), everything()[1].numpy())


def lowered(net: nn.Module, images: Tensor) -> IntegerNet:
    return integer_net(graph_of(net, images[:1], name="net"), images.numpy())


@needs_compiler
def test_all_operations_in_c_are_those_of_the_reference(tmp_path: Path) -> None:
    found = proof_of_everything(tmp_path)
    assert found.equal_logits == found.equal_predictions == found.images == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.c", "net.c", "net.h"]


@needs_compiler
def test_a_trained_net_gives_every_answer_in_c(tmp_path: Path) -> None:
    data = digits()
    found = proof(trained()[0], data.test_images, tmp_path, calibration=data.train_images[:256])
    assert found.equal_predictions == found.equal_logits == len(data.test_images)


@needs_compiler
def test_wide_weights_are_those_of_the_reference(tmp_path: Path) -> None:
    net, images = quantized_resnet(bits=12)
    assert proof(net, images, tmp_path).equal_logits == len(images)
    assert "static const int16_t net_layer_0_weight[72]" in (tmp_path / "net.h").read_text()


@needs_compiler
def test_a_signal_has_maps_of_one_row(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 6, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(3, 2, 1),
        nn.Conv1d(6, 6, 3, groups=3, padding="same", dilation=2),
        nn.AvgPool1d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(18, 4),
    )
    torch.manual_seed(0)
    images = pixels(24, 2, 21)
    assert proof(quantize(model, images).eval(), images, tmp_path).equal_logits == len(images)


@needs_compiler
def test_a_faulty_twin_has_other_logits(tmp_path: Path) -> None:
    net, images = trained()[0], digits().test_images[:50]
    found = proof(net, images, tmp_path, faults="weights.bit_flip:3e-2", chip=1)
    assert found.equal_logits == len(images)
    assert found.largest_difference > 0.5


@needs_compiler
@pytest.mark.slow
def test_nothing_overflows_and_no_memory_is_read_that_is_not_the_nets(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        c_program, "FLAGS", (*c_program.FLAGS, "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover")
    )
    assert proof_of_everything(tmp_path).equal_logits == 24
    integers = lowered_everything()
    extreme = np.random.default_rng(0).choice(np.array([-32768, 32767], np.int16), (24, 2, 7, 6))
    program = compile_program(integers, tmp_path, tmp_path)
    found = run_program(program, extreme, classes=5)
    assert np.array_equal(found, run_values(integers, extreme.astype(np.int64))[integers.output])


@needs_compiler
def test_an_image_that_is_cut_short_is_an_error_of_the_program(tmp_path: Path) -> None:
    images, integers = everything()[1], lowered_everything()
    write_c(integers, tmp_path)
    program = compile_program(integers, tmp_path, tmp_path)
    whole = image_codes(integers, images[:2].numpy()).tobytes()
    done = subprocess.run([program], input=whole[:-2], capture_output=True, text=False, check=False)
    assert done.returncode == 1
    assert done.stderr == b"the last image is cut short\n"
    assert np.array_equal(np.array([done.stdout.split()], np.int64), run(integers, images[:1].numpy()))
    with pytest.raises(ExportError, match="the C program ends with 0 and 10 logits"):
        run_program(program, image_codes(integers, images[:2].numpy()), classes=4)


def test_a_program_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_program, "compile_program", lambda *_: Path("none"))
    monkeypatch.setattr(c_program, "run_program", lambda *_, **__: np.zeros((24, 5), np.int64))
    with pytest.raises(ExportError, match=r"^net: 24 of 24 images have other logits in C"):
        proof_of_everything(tmp_path)


def test_the_program_has_no_floats_and_asks_for_no_memory() -> None:
    files = c_sources(lowered_everything())
    code = re.sub(r"/\*.*?\*/", "", files["net.c"] + files["net.h"], flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|calloc|free|stdlib|math\.h)\b", code)
    assert not [word for word in re.findall(r"\b\d+\.\d+\b", code) if f"SCALE {word}" not in code]


def test_no_line_of_the_program_is_longer_than_120_characters() -> None:
    assert max(len(line) for text in c_sources(lowered_everything()).values() for line in text.splitlines()) <= 120


def test_the_header_says_the_facts_and_none_ends_the_comment() -> None:
    integers = replace(lowered_everything(), facts={"data": "digits", "chip": "*/ #error"})
    header = c_sources(integers)["net.h"]
    assert " * data: digits\n" in header
    assert " * chip: * / #error\n" in header
    assert header.count("*/") == header.count("/*")


def test_tables_hold_every_weight_once() -> None:
    net, images = quantized_resnet()
    integers = lowered(net, images)
    weights = sum(p.numel() for name, p in net.named_parameters() if name.endswith("weight") and "norm" not in name)
    assert weights < table_bytes(integers) < weights + 13 * 200


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("net", "net"),
        ("MobileNet-V2", "mobilenet_v2"),
        ("3x3", "net_3x3"),
        ("main", "net_main"),
        ("é*/", "net"),
        ("", "net"),
    ],
)
def test_any_name_becomes_an_identifier(name: str, identifier: str) -> None:
    assert c_name(name) == identifier


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ExportError, match=r"no C compiler \(cc, gcc or clang\) is installed"):
        proof_of_everything(tmp_path)


@needs_compiler
def test_sources_that_the_compiler_refuses_are_named(tmp_path: Path) -> None:
    integers = lowered_everything()
    write_c(integers, tmp_path)
    (tmp_path / "net.c").write_text("int x = ;\n")
    with pytest.raises(ExportError, match=r"net\.c: .* refuses it: .*error"):
        compile_program(integers, tmp_path, tmp_path)


def test_maps_of_three_dimensions_are_refused_with_their_layer() -> None:
    model, images = user_model("volume")
    with pytest.raises(ExportError, match=r"^0: the C program has maps of two dimensions"):
        c_sources(lowered(quantize(model, images).eval(), images))


@st.composite
def chains(draw: st.DrawFn) -> IntegerNet:
    """Draw a net whose nodes read any of the values before them."""
    names, nodes = [INPUT], []
    for index in range(draw(st.integers(1, 12))):
        inputs = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)))
        nodes.append(IntegerNode(f"n{index}", Add(), inputs, (draw(st.integers(1, 50)),), 1.0, 1))
        names.append(f"n{index}")
    return IntegerNet("net", (draw(st.integers(1, 50)),), 1.0, tuple(nodes), draw(st.sampled_from(names[1:])), 1.0)


@given(chains())
def test_values_that_are_needed_at_the_same_time_share_no_memory(net: IntegerNet) -> None:
    memory = plan_memory(net)
    sizes = {INPUT: net.input_shape[0]} | {node.name: node.shape[0] for node in net.nodes}
    places = {name: set(range(at, at + sizes[name])) for name, at in memory.offsets.items()}
    for index, node in enumerate(net.nodes):
        later = {name for other in net.nodes[index:] for name in other.inputs} | {net.output}
        written = [INPUT, *(other.name for other in net.nodes[:index])]
        for name in [name for name in written if name in later]:
            assert not places[name] & places[node.name]
    assert max(map(max, places.values())) + 1 == memory.size


def test_a_chain_needs_the_memory_of_its_two_largest_neighbours() -> None:
    nodes = tuple(
        IntegerNode(f"n{index}", Add(), (f"n{index - 1}" if index else INPUT,), (8,), 1.0, 1) for index in range(9)
    )
    assert plan_memory(IntegerNet("net", (8,), 1.0, nodes, "n8", 1.0)).size == 16
