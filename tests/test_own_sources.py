"""A folder of a user's own net is whole: it is loaded by every command without the file that the net came from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import ftnas, refused
from exported_nets import data, own_float
from torch import Tensor, nn

import ftnas as package
from ftnas.errors import FtnasError, ModelError
from ftnas.files import read_json, write_json
from ftnas.networks.hardened import protections_of
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.hardening import WEIGHTS
from ftnas.pipeline.nets import load_net, quantised_net
from ftnas.pipeline.own_sources import keep_source

IMAGES = ("--images", "20")


def write_program(folder: Path) -> str:
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(own_float(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "net.pt2")
    return str(folder / "net.pt2")


def write_onnx(folder: Path) -> str:
    onnx = pytest.importorskip("onnx")
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(own_float(), (torch.zeros(2, 1, 8, 8),), folder / "net.onnx", dynamo=False)
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return str(folder / "net.onnx")


def write_python(folder: Path) -> str:
    shutil.copy(Path(__file__).with_name("own_resnet.py"), folder / "mine.py")
    return f"{folder / 'mine.py'}:ResNet"


@pytest.fixture(params=[write_program, write_onnx, write_python], ids=["pt2", "onnx", "python"])
def hardened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[nn.Module, Path]:
    """Return a hardened net and its folder; what it came from is gone."""
    write: Callable[[Path], str] = request.param
    (tmp_path / "mine").mkdir()
    net = package.api.harden(
        load_net(write(tmp_path / "mine"), data="digits", images=20),
        {"budget": 0.5, "select": "random"},
        tmp_path / "out",
    )
    shutil.rmtree(tmp_path / "mine")
    return net.net.model, tmp_path / "out"


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(data().test_images[:20])
    return found


def test_the_folder_of_a_hardened_net_is_a_net_for_every_other_command(
    hardened: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    model, out = hardened
    assert protections_of(package.load(out)) == protections_of(model) != {}
    assert torch.equal(logits(package.load(out)), logits(model))
    assert "copies.0.output" in ftnas("sites", out).stdout
    assert "parameters" in ftnas("show", out).stdout
    result = ftnas("campaign", out, "--faults", "features.bitflip:0.01", "--chips", 2, *IMAGES, "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    result = ftnas("export", out, "--format", "safetensors", *IMAGES, "--out", tmp_path / "e")
    assert result.exit_code == 0, result.output
    assert torch.equal(logits(package.load(tmp_path / "e")), logits(model))
    result = ftnas("harden", out, "--method", "bound", *IMAGES, "--out", tmp_path / "again")
    assert result.exit_code == 2 or torch.equal(logits(package.load(tmp_path / "again")), logits(model)), result.output


def test_a_source_that_is_gone_or_leads_elsewhere_is_named(tmp_path: Path) -> None:
    package.api.harden(
        load_net(write_program(tmp_path), data="digits", images=20), {"method": "guard"}, tmp_path / "out"
    )
    described, source = tmp_path / "out" / "net.json", tmp_path / "out" / "net.source.pt2"
    content = read_json(described)
    for name in ("../net.pt2", "/etc/passwd", 3):
        write_json(described, {**content, "net": {**content["net"], "source": name}})
        with pytest.raises(FtnasError, match=r"net\.json"):
            package.load(tmp_path / "out")
    write_json(described, {**content, "net": {**content["net"], "image_shape": [1, 8]}})
    with pytest.raises(ModelError, match="image_shape"):
        package.load(tmp_path / "out")
    write_json(described, content)
    source.unlink()
    assert "net.source.pt2" in refused(tmp_path, "sites", tmp_path / "out")


class Fickle(nn.Module):
    """A net that looks at its values, which no program does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1))
        return y if float(x.sum()) > 1e9 else y * 1.0


class Buffered(Fickle):
    """A net with a buffer, which a program holds under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(64))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1) - self.mean)
        return y


@pytest.mark.parametrize("kind", [Fickle, Buffered])
def test_a_net_that_does_not_come_back_is_said_to_need_its_file(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = quantised_net(kind().eval(), data(), name="own", origin="mine.py:Own")
    assert keep_source(net, tmp_path / WEIGHTS) is None and not list(tmp_path.iterdir())
    found = package.api.harden(net, {"method": "guard"}, tmp_path / "out")
    assert "--weights" in found.note
    with pytest.raises(ModelError, match="a net of your own"):
        package.load(tmp_path / "out")
    assert isinstance(found.net, Checkpoint) and found.net.source is None
