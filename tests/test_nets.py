"""Nets by name: the user's own, quantised, beside those of run folders and exported files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import contents, ftnas, make_run, refused
from own_resnet import ResNet
from PIL import Image
from safetensors.torch import save_file
from small_nets import same_bits
from torch import Tensor, nn

from ftnas.campaign import accuracy
from ftnas.data import load_data
from ftnas.errors import ModelError
from ftnas.export.weights import build_net, save_weights
from ftnas.faults import sites
from ftnas.files import write_json, write_tensors
from ftnas.networks import build_baseline
from ftnas.pipeline.nets import load_net
from ftnas.quantization import Quantization
from ftnas.runtime import seeded
from ftnas.training import TrainingSettings, train

OWN = Path(__file__).with_name("own_resnet.py")
FLIPS = ("--faults", "weights.bitflip:1e-3,1e-2", "--chips", 2)

ODD_NETS = """
import torch
from torch import nn

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.encoder = nn.Sequential(nn.Flatten(2), nn.LSTM(36, 8))
        self.fc = nn.Linear(8, 10)

class Upwards(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.up = nn.ConvTranspose2d(4, 4, 3)
        self.fc = nn.Linear(4, 10)

class Nothing(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]

class FiveClasses(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 5))

class Maps(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 10, 3))

class Colours(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 10, 8), nn.Flatten())

class Nan(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        nn.init.constant_(self[1].bias, float("nan"))
"""


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Return the ResNet after a few epochs."""
    with seeded("own resnet", 0):
        model = ResNet()
    data = load_data("digits")
    settings = TrainingSettings(epochs=3)
    train(model, data.train_images, data.train_labels, settings=settings, faults=(), key="own resnet")
    return model.eval()


@pytest.fixture(scope="module")
def files(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the ResNet as a program, as an ONNX file and as weights."""
    folder, images = tmp_path_factory.mktemp("own"), torch.zeros(2, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own workings
        torch.export.save(torch.export.export(trained, (images,)), folder / "net.pt2")
        torch.onnx.export(trained, (images,), folder / "net.onnx", dynamo=False)
    save_file(trained.state_dict(), folder / "net.safetensors")
    (folder / "odd.py").write_text(ODD_NETS)
    return folder


def own(files: Path, kind: str) -> dict[str, Any]:
    """Return how the ResNet is named as a ``kind`` of file."""
    if kind == "py":
        return {"text": f"{OWN}:ResNet", "weights": files / "net.safetensors"}
    return {"text": str(files / f"net.{kind}")}


def load(text: str, **options: Any) -> Any:
    return load_net(text, **{"data": "digits", **options})


@torch.no_grad()
def logits(net: Any) -> Tensor:
    found: Tensor = net.model(net.data.test_images)
    return found


@pytest.mark.parametrize("kind", ["py", "pt2", "onnx"])
def test_own_nets_keep_their_accuracy_in_8_bits_and_the_names_of_their_layers(
    kind: str, files: Path, trained: nn.Module
) -> None:
    net = load(**own(files, kind))
    with torch.no_grad():
        expected = trained(net.data.test_images)
    assert accuracy(trained, net.data.test_images, net.data.test_labels) > 0.9
    assert (expected.argmax(1) == logits(net).argmax(1)).float().mean() > 0.98
    assert net.float_model is not None
    assert torch.allclose(net.float_model(net.data.test_images), expected, atol=1e-4)
    names = [site.name for site in sites(net.model, "*.weight")]
    assert names[:2] == ["conv1.weight", "layer1.0.conv1.weight"]
    assert "layer2.0.downsample.0.weight" in names
    assert len(names) == 11
    assert {site.bits for site in sites(net.model)} == {8}


def test_a_program_and_its_model_give_the_same_quantised_net(files: Path) -> None:
    assert torch.equal(logits(load(**own(files, "pt2"))), logits(load(**own(files, "py"))))


def test_bits_are_those_of_weights_and_features(files: Path) -> None:
    assert {site.bits for site in sites(load(**own(files, "pt2"), bits=5).model)} == {5}


def test_an_instance_is_named_like_a_class_and_draws_the_same_weights_each_time() -> None:
    first, second = load(f"{OWN}:resnet"), load(f"{OWN}:resnet")
    assert (first.name, first.origin) == ("resnet", f"{OWN}:resnet")
    assert same_bits(first.model.state_dict(), second.model.state_dict())
    assert not first.model.training


def test_sites_and_campaigns_take_an_own_net_and_go_on_where_they_were(files: Path, tmp_path: Path) -> None:
    listed = ftnas("sites", f"{OWN}:ResNet", "*.weight", "--data", "digits", "--bits", 6)
    assert listed.exit_code == 0, listed.output
    assert "int6" in listed.stdout
    arguments = ("campaign", files / "net.pt2", "--data", "digits", "--images", 60, "--out", tmp_path / "c", *FLIPS)
    first = ftnas(*arguments)
    assert first.exit_code == 0, (first.output, first.exception)
    written = contents(tmp_path / "c")
    assert ftnas(*arguments).exit_code == 0
    assert contents(tmp_path / "c") == written
    assert json.loads(written["results.json"])["net"] == "net"


def test_own_nets_are_compared_and_exported(files: Path, tmp_path: Path) -> None:
    own_nets = (files / "net.pt2", f"{OWN}:resnet", "--data", "digits")
    few = ("--set", "data.test_images=120")
    compared = ftnas("compare", *own_nets, "--faults", "weights.bitflip:1e-2", "--out", tmp_path / "compare", *few)
    assert compared.exit_code == 0, (compared.output, compared.exception)
    rows = json.loads((tmp_path / "compare" / "comparison.json").read_text())["rows"]
    assert [row["label"] for row in rows] == ["net", "resnet"]
    assert rows[0]["clean"] > 0.9
    exported = ftnas(
        "export", f"{OWN}:ResNet", "--weights", files / "net.safetensors", "--data", "digits",
        "--format", "onnx,pt2,safetensors,c", "--out", tmp_path / "dist", "--json",
    )  # fmt: skip
    assert exported.exit_code == 0, (exported.output, exported.exception)
    proofs = {proof["format"]: proof for proof in json.loads(exported.stdout)["proofs"]}
    assert {name: proof["same"] for name, proof in proofs.items() if name != "c"} == dict.fromkeys(
        ("onnx", "pt2", "safetensors"), 597
    )
    assert proofs["c"]["same"] >= 590


def test_sites_print_json(files: Path) -> None:
    printed = ftnas("sites", files / "net.onnx", "--data", "digits", "--json")
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout)[0]["name"] == "conv1.weight"


def make_training(folder: Path) -> tuple[Path, nn.Module]:
    """Write a run whose winner is a small baseline; return its folder and the net."""
    run = make_run(folder / "run")
    spec = {"baseline": "mobilenet_v2", "width": 0.125, "numbers": Quantization(weight_bits=6).to_dict()}
    torch.manual_seed(0)
    model = build_baseline(
        "mobilenet_v2", width=0.125, image_shape=(1, 8, 8), classes=10, numbers=Quantization(weight_bits=6)
    )
    model(load_data("digits").train_images[:200])
    home = run / "trainings" / "winner-x"
    write_json(home / "model.json", {"name": "winner-x", "model": spec, "seed": 0})
    write_tensors(home / "weights.safetensors", model.state_dict())
    write_json(run / "winner" / "result.json", {"name": "winner-x"})
    return run, model.eval()


def test_a_training_says_where_it_is_from_and_what_rebuilds_it(tmp_path: Path) -> None:
    run, model = make_training(tmp_path)
    for text in (run, run / "trainings" / "winner-x"):
        net = load_net(str(text))
        assert (net.name, net.origin, net.float_model) == (
            "winner-x", str(run / "trainings" / "winner-x"), None
        )  # fmt: skip
        rebuilt = build_net(net.spec, source="test")
        rebuilt.load_state_dict(net.model.state_dict())
        assert torch.equal(rebuilt.eval()(net.data.test_images), logits(net))
    assert torch.equal(model(net.data.test_images), logits(net))


def test_an_exported_net_is_a_net_again(tmp_path: Path) -> None:
    run, model = make_training(tmp_path)
    spec = load_net(str(run)).spec
    save_weights(tmp_path / "dist" / "net.safetensors", model, spec, facts={"source": "winner-x", "data": "digits"})
    for text in (tmp_path / "dist", tmp_path / "dist" / "net.safetensors"):
        net = load_net(str(text), images=50)
        assert (net.name, net.data.name, len(net.data.test_images)) == ("winner-x", "digits", 50)
        assert torch.equal(logits(net), model(net.data.test_images))
        assert net.spec == spec


def test_an_exported_own_net_comes_back_through_its_python_file(tmp_path: Path, files: Path) -> None:
    net = load(**own(files, "py"), bits=5)
    save_weights(tmp_path / "net.safetensors", net.model, None)
    again = load(f"{OWN}:ResNet", weights=tmp_path / "net.safetensors")
    assert torch.equal(logits(again), logits(net))
    with pytest.raises(ModelError, match=r"a net of your own; give FILE\.py:ResNet --weights"):
        load(str(tmp_path / "net.safetensors"))
    with pytest.raises(ModelError, match=r"--bits: .* has its own"):
        load(f"{OWN}:ResNet", weights=tmp_path / "net.safetensors", bits=4)


def test_an_exported_net_of_a_newer_ftnas_is_refused_in_one_line(tmp_path: Path) -> None:
    run, model = make_training(tmp_path)
    save_weights(tmp_path / "dist" / "net.safetensors", model, load_net(str(run)).spec)
    content = json.loads((tmp_path / "dist" / "net.json").read_text())
    (tmp_path / "dist" / "net.json").write_text(json.dumps(content | {"schema": 99, "ftnas": "7.0"}))
    line = refused(tmp_path, "sites", tmp_path / "dist")
    assert "schema 99, written by ftnas 7.0" in line


def one_class(folder: Path) -> Path:
    (folder / "images" / "ant").mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder / "images" / "ant" / "1.png")
    return folder / "images"


@pytest.mark.parametrize("command", [("sites",), ("campaign", *FLIPS, "--out", "c")])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([f"{OWN}:ResNet"], ["--data:", "own_resnet.py:ResNet is a model of your own", "digits, cifar10, npz, folder"]),
        ([f"{OWN}:ResNet", "--data", "mnist"], ["unknown data set 'mnist'"]),
        ([f"{OWN}:Net", "--data", "digits"], ["has nothing called 'Net'", "BasicBlock, ResNet, resnet"]),
        ([f"{OWN}", "--data", "digits"], ["needs the name of a net in it, as FILE.py:NAME"]),
        ([f"{OWN}:", "--data", "digits"], ["needs the name of a net in it"]),
        (["nowhere.py:Net", "--data", "digits"], ["nowhere.py: is not there"]),
        (["nowhere.pt2", "--data", "digits"], ["nowhere.pt2: is not there"]),
        (["nowhere.onnx", "--data", "digits"], ["nowhere.onnx: is not there"]),
        (["nowhere.safetensors", "--data", "digits"], ["nowhere.safetensors: is not there"]),
        (["nowhere"], ["nowhere: is neither a run folder nor a training", "FILE.py:NAME, FILE.pt2 or FILE.onnx"]),
        (["text.onnx", "--data", "digits"], ["text.onnx: is not a whole ONNX file"]),
        (["text.pt2", "--data", "digits"], ["text.pt2: is truncated or not a file of torch.export.save"]),
        (["net.pt2", "--data", "digits", "--weights", "w.safetensors"], ["--weights: is for a model in a Python file"]),
        (["net.pt2", "--data", "digits", "--bits", "99"], ["net.pt2: ", "2..16", "99"]),
        ([f"{OWN}:ResNet", "--data", "digits", "--weights", "w.safetensors"], ["w.safetensors: is not there"]),
        ([f"{OWN}:ResNet", "--data", "digits", "--weights", "text.onnx"], ["text.onnx: is not a whole safetensors"]),
        (["odd.py:Recurrent", "--data", "digits"], ["encoder.1 (LSTM) cannot be quantised"]),
        (["odd.py:Upwards", "--data", "digits"], ["odd.py:Upwards: up (ConvTranspose2d) cannot be quantised"]),
        (["odd.py:Nothing", "--data", "digits"], ["odd.py:Nothing: Nothing has no Conv1d"]),
        (["odd.py:FiveClasses", "--data", "digits"], ["has 5 classes, digits has 10"]),
        (["odd.py:Maps", "--data", "digits"], ["a tensor [2, 10, 6, 6] for 2 images; allowed are logits [2, 10]"]),
        (["odd.py:Colours", "--data", "digits"], ["does not run on images 1x8x8 of digits: RuntimeError"]),
        (["odd.py:Nan", "--data", "digits"], ["odd.py:Nan: 1: the images give results that are infinite"]),
        ([f"{OWN}:ResNet", "--data", "folder"], ["folder: needs a folder of images by class"]),
        ([f"{OWN}:ResNet", "--data", "folder", "--data-dir", "images"], ["images: has only the class ant"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    command: tuple[Any, ...], arguments: list[str], words: list[str], files: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("net.pt2", "odd.py"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    for name in ("text.onnx", "text.pt2"):
        (tmp_path / name).write_text("hello")
    one_class(tmp_path)
    line = refused(tmp_path, command[0], *arguments[:1], *command[1:], *arguments[1:])
    assert [word for word in words if word not in line] == []


def test_options_of_own_nets_are_refused_for_others(tmp_path: Path) -> None:
    run, _ = make_training(tmp_path)
    for option in ("bits", "weights"):
        line = refused(tmp_path, "sites", run, f"--{option}", 4)
        assert f"--{option}: is for a model of your own" in line


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"w.safetensors: does not fit .*own_resnet.py:ResNet"):
        load(f"{OWN}:ResNet", weights=tmp_path / "w.safetensors")


def test_an_exported_net_for_other_data_is_refused(tmp_path: Path) -> None:
    run, model = make_training(tmp_path)
    spec = {**(load_net(str(run)).spec or {}), "classes": 10, "image_shape": [1, 16, 16]}
    save_weights(tmp_path / "dist" / "net.safetensors", model, spec, facts={"data": "digits"})
    assert "is of a net for other data than digits (1x8x8, 10 classes)" in refused(tmp_path, "sites", tmp_path / "dist")


def test_own_images_and_an_own_net_go_together(tmp_path: Path) -> None:
    for label in range(3):
        for number in range(8):
            file = tmp_path / "images" / f"class{label}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (80 * label, 30 * number, 9)).save(file)
    place = ("--data", "folder", "--data-dir", tmp_path / "images")
    result = ftnas("campaign", f"{OWN}:ResNet", *place, *FLIPS, "--out", tmp_path / "c")
    assert result.exit_code == 0, (result.output, result.exception)
    content = json.loads((tmp_path / "c" / "results.json").read_text())
    assert content["data"] == {"name": "folder", "test_images": 6}
