"""`ftnas train`: one net outside a search, and the folder that it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import contents, refused
from command_line import ftnas as tried

from ftnas import api
from ftnas.errors import FtnasError, ModelError, RunError, SpaceError
from ftnas.files import read_json, read_tensors, write_tensors
from ftnas.pipeline.config import TrainConfig
from ftnas.pipeline.nets import load_net
from ftnas.runtime import keyed_generator
from ftnas.space import load_space
from ftnas.training import trainer

MODEL = """
from torch import nn

small = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
"""
QUICK = {
    "data": {"train_images": 120, "test_images": 100},
    "faults": ["features.mac_bit_bias:3e-2"],
    "campaign": {"rates": [3e-3]},
    "training": {"epochs": 2, "batch_size": 32},
}


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model.py").write_text(MODEL)
    return f"{tmp_path / 'model.py'}:small"


@pytest.fixture
def genotype(tmp_path: Path) -> Path:
    space = load_space("tiny")
    file = tmp_path / "genotype.json"
    file.write_text(space.canonical(space.sample(keyed_generator("test"))).to_json())
    return file


def train(net: str, out: Path, **changes: Any) -> dict[str, Any]:
    return api.train({"net": net, **QUICK, **changes}, out)


def test_a_trained_net_is_one_for_every_other_command(model: str, genotype: Path, tmp_path: Path) -> None:
    nets: dict[str, dict[str, Any]] = {"resnet20": {"width": 0.0625}, model: {}, str(genotype): {"space": "tiny"}}
    for number, (net, keys) in enumerate(nets.items()):
        out = tmp_path / str(number)
        result = train(net, out, **keys)
        found = load_net(str(out))
        answers = found.model(found.data.test_images).argmax(1)
        assert float((answers == found.data.test_labels).double().mean()) == result["clean"]
        assert [rate["rate"] for rate in result["rates"]] == [3e-2, 3e-3]
        assert all(len(rate["chips"]) == 20 for rate in result["rates"])


def test_a_training_leaves_its_configuration_curves_and_result(model: str, tmp_path: Path) -> None:
    result = train(model, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {
        "training.yaml", "environment.json", "model.json", "history.json", "weights.safetensors", "result.json",
        "checksums.sha256",
    }  # fmt: skip
    assert len(read_json(tmp_path / "out" / "history.json")) == 2
    assert read_json(tmp_path / "out" / "result.json") == result
    again = api.train(tmp_path / "out" / "training.yaml", tmp_path / "copy")
    assert again == result


def test_the_same_training_again_changes_no_file(model: str, tmp_path: Path) -> None:
    first = train(model, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert train(model, tmp_path / "out") == first
    assert contents(tmp_path / "out") == before


def test_a_training_that_was_cut_off_ends_in_the_same_bits(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(model, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("ftnas.training.saving.REST", 0)
        epochs = []

        def stop(*arguments: Any, **more: Any) -> Any:
            epochs.append(1)
            if len(epochs) == 2:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        real = trainer._Training._epoch
        patch.setattr(trainer._Training, "_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(model, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    train(model, tmp_path / "cut")
    files = ("weights.safetensors", "result.json", "model.json", "training.yaml")
    assert [f for f in files if (tmp_path / "cut" / f).read_bytes() != (tmp_path / "whole" / f).read_bytes()] == []


def test_without_faults_a_training_is_plain_and_measured_clean_only(model: str, tmp_path: Path) -> None:
    result = train(model, tmp_path / "out", faults=[], campaign={})
    assert (result["training"], result["rates"]) == ("plain", [])


def test_a_plain_training_meets_no_faults_and_is_measured_under_them(model: str, tmp_path: Path) -> None:
    result = train(model, tmp_path / "out", kind="plain")
    assert (result["training"], [rate["rate"] for rate in result["rates"]]) == ("plain", [3e-2, 3e-3])
    assert {epoch["faulty_loss"] for epoch in read_json(tmp_path / "out" / "history.json")} == {0}
    train(model, tmp_path / "without", faults=[], campaign={})
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("out", "without")]
    assert weights[0] == weights[1]


def test_a_net_of_a_file_that_has_changed_is_loaded_with_a_warning(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "out")
    (tmp_path / "model.py").write_text(MODEL.replace("ReLU", "Tanh"))
    with pytest.warns(UserWarning, match=r"model\.py: has changed since"):
        load_net(str(tmp_path / "out"))


def test_a_file_that_has_changed_does_not_go_on_with_old_weights(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "out")
    (tmp_path / "model.py").write_text(MODEL.replace("ReLU", "Tanh"))
    with pytest.raises(RunError, match="was trained as another net"):
        train(model, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"net": "resnet21"}, ["resnet21", "resnet20", "FILE.py:NAME"]),
        ({"net": "resnet20", "space": "tiny"}, ["space", "genotype", "resnet20"]),
        ({"net": "resnet20", "bits": 4}, ["bits", "resnet20"]),
        ({"net": "MODEL", "width": 0.5}, ["width", "baseline", "model.py"]),
        ({"net": "MODEL", "numbers": {"weight_bits": 4}}, ["numbers", "baseline"]),
        ({"net": "GENOTYPE"}, ["space", "genotype.json", "tiny"]),
        ({"net": "GENOTYPE", "space": "digits"}, ["genotype.json", "space digits", "normal"]),
        ({"net": "nowhere.json", "space": "tiny"}, ["nowhere.json", "cannot be read"]),
        ({"net": "broken.json", "space": "tiny"}, ["broken.json", "not JSON"]),
        ({"net": "resnet20", "width": 0}, ["ftnas train", "width", "0"]),
        ({"net": "resnet20", "epochs": 3}, ["ftnas train", "epochs", "unknown key", "training"]),
        ({"net": "resnet20", "training": {"batch_size": 500}}, ["training.batch_size", "500", "120"]),
        ({"net": "resnet20", "data": {"name": "npz"}}, ["data.directory", "npz"]),
    ],
)
def test_an_impossible_training_is_refused_and_leaves_nothing(
    changes: dict[str, Any], words: list[str], model: str, genotype: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.json").write_text("{")
    places = {"MODEL": model, "GENOTYPE": str(genotype)}
    places |= {name: str(tmp_path / name) for name in ("nowhere.json", "broken.json")}
    net = places.get(changes["net"], changes["net"])
    before = contents(tmp_path)
    with pytest.raises(FtnasError) as caught:
        api.train({**QUICK, **changes, "net": net}, tmp_path / "out")
    assert [word for word in words if word not in str(caught.value)] == []
    assert contents(tmp_path) == before


def test_a_net_with_a_layer_that_cannot_be_quantised_is_refused_by_its_name(tmp_path: Path) -> None:
    text = "from torch import nn\n\nnet = nn.Sequential(nn.Flatten(), nn.Bilinear(8, 8, 10))\n"
    (tmp_path / "model.py").write_text(text)
    with pytest.raises(ModelError, match="Bilinear"):
        train(f"{tmp_path / 'model.py'}:net", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_training_or_of_something_else_is_refused(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "out")
    options = ["--data", "digits", "--out", tmp_path / "out"]
    line = refused(tmp_path, "train", "resnet20", *options)
    assert [word for word in ("another configuration", "--out") if word not in line] == []
    line = refused(tmp_path, "train", model, "--out", tmp_path)
    assert [word for word in ("not a training", "--out") if word not in line] == []


def test_an_unfinished_training_is_no_net(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "out")
    (tmp_path / "out" / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"no finished training .*weights\.safetensors"):
        load_net(str(tmp_path / "out"))


def test_weights_of_another_net_are_refused(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "out")
    tensors, metadata = read_tensors(tmp_path / "out" / "weights.safetensors")
    first = next(iter(tensors))
    write_tensors(tmp_path / "out" / "weights.safetensors", {**tensors, first: torch.zeros(3)}, metadata)
    with pytest.raises(RunError, match=r"weights\.safetensors"):
        load_net(str(tmp_path / "out"))


def test_a_cell_without_its_space_is_refused(genotype: Path, tmp_path: Path) -> None:
    train(str(genotype), tmp_path / "out", space="tiny")
    (tmp_path / "out" / "space.yaml").unlink()
    with pytest.raises(RunError, match=r"space\.yaml"):
        load_net(str(tmp_path / "out"))


def test_a_genotype_of_a_newer_schema_is_refused(genotype: Path, tmp_path: Path) -> None:
    genotype.write_text(json.dumps(json.loads(genotype.read_text()) | {"schema": 2}))
    with pytest.raises(SpaceError, match="schema must be 1, got 2"):
        train(str(genotype), tmp_path / "out", space="tiny")


def test_the_command_trains_prints_a_line_and_takes_its_options(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = tried(
        "train", model, "--data", "digits", "--faults", "weights.bitflip:1e-2,1e-3", "--epochs", "1", "--bits", "6",
        "--chips", "21", "--set", "data.train_images=120", "--set", "data.test_images=100", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    found, config = read_json(out / "result.json"), TrainConfig.model_validate(api.read_yaml(out / "training.yaml"))
    assert f"{100 * found['clean']:.1f}" in result.stdout and str(out) in result.stdout
    assert [(rate["rate"], len(rate["chips"])) for rate in found["rates"]] == [(1e-2, 21), (1e-3, 21)]
    assert (config.training.epochs, config.bits, config.data.train_images) == (1, 6, 120)
    assert read_json(out / "model.json")["model"]["bits"] == 6


def test_a_training_moved_elsewhere_is_still_a_net(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert load_net(str(tmp_path / "elsewhere")).name == "small"
