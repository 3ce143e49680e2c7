from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exported_nets import baseline, found, one_step, own, weight
from test_export_onnx import STEPS

from ftnas.errors import ExportError
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import Concatenate, Convolve, Graph
from ftnas.export.program import run_program, write_program
from ftnas.export.tracing import graph_of
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.quantization import FixedPoint

ALONE = """
import sys
sys.modules["ftnas"] = None
import torch
program = torch.export.load(sys.argv[1]).module()
print(tuple(program(torch.zeros(5, 1, 8, 8)).shape))
"""


def written(net: Checkpoint, path: Path) -> Graph:
    graph = graph_of(net.model, net.data.test_images[:1], name="net", facts={"data": "digits"})
    write_program(graph, path)
    return graph


@pytest.mark.parametrize("net", [found, baseline, own], ids=["found", "baseline", "own"])
def test_a_program_and_the_frozen_net_repeat_the_net_to_the_bit(tmp_path: Path, net: object) -> None:
    net = net()  # type: ignore[operator]
    graph = written(net, tmp_path / "net.pt2")
    with torch.no_grad():
        expected = torch.cat([net.model(images) for images in net.data.test_images.split(64)])
        frozen = torch.cat([FrozenNet(graph)(images) for images in net.data.test_images.split(64)])
    assert torch.equal(run_program(tmp_path / "net.pt2", net.data.test_images), expected)
    assert torch.equal(frozen, expected)


def test_a_program_runs_without_ftnas_at_any_batch_size(tmp_path: Path) -> None:
    written(own(), tmp_path / "net.pt2")
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path / "net.pt2")], capture_output=True, text=True)
    assert done.stdout == "(5, 10)\n", done.stderr


def test_a_program_has_plain_operations_and_integer_weights(tmp_path: Path) -> None:
    written(own(), tmp_path / "net.pt2")
    files = {"data": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=files)
    called = {str(step.target) for step in program.graph.nodes if step.op == "call_function"}
    assert all(name.startswith("aten.") for name in called), called
    codes = [tensor for name, tensor in program.state_dict.items() if name.endswith("codes")]
    assert len(codes) == 3
    assert {tensor.dtype for tensor in codes} == {torch.int8}
    assert files == {"data": b"digits"} or files == {"data": "digits"}


@pytest.mark.parametrize(
    ("bits", "signed", "kind"), [(4, True, torch.int8), (8, False, torch.uint8), (16, True, torch.int16)]
)
def test_a_buffer_is_no_wider_than_its_codes(bits: int, signed: bool, kind: torch.dtype) -> None:
    integers = weight(2, 2, 1, 1, number=FixedPoint(bits, 0.1, signed))
    operation = Convolve(integers, None, None, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    net = FrozenNet(one_step(operation, torch.zeros(1, 2, 3, 3), (2, 3, 3)).graph)
    assert net.layers["step"].codes.dtype == kind


@pytest.mark.parametrize("name", STEPS)
def test_a_frozen_step_in_float64_is_near_that_in_float32(name: str) -> None:
    step = STEPS[name]
    wide = FrozenNet(step.graph).double()(step.images.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), FrozenNet(step.graph)(step.images))


def test_what_torch_cannot_export_is_one_line(tmp_path: Path) -> None:
    step = one_step(Concatenate(5), torch.zeros(1, 2, 3, 3), (2, 3, 3))
    with pytest.raises(ExportError, match=r"^step: torch\.export refuses it: [^\n]+$"):
        write_program(step.graph, tmp_path / "net.pt2")
    assert not (tmp_path / "net.pt2").exists()
