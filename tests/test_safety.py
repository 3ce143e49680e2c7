"""A file from a stranger executes nothing and leads nowhere: no unpickling, no paths out, no code without consent."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exported_nets
import numpy as np
import pytest
import torch
from command_line import make_run, refused
from fuzz_folders import small_run
from safetensors.torch import save_file
from test_importing_onnx import IMAGES, net_of, weight
from test_importing_program import rewritten, save

from ftnas import api
from ftnas.configuration import read_yaml
from ftnas.consent import VARIABLE, allow_code
from ftnas.data import load_data
from ftnas.errors import ConfigError, DataError, FtnasError, ModelError, RunError
from ftnas.files import read_tensors, write_json
from ftnas.importing.exported_program import load_program
from ftnas.importing.onnx_file import load_onnx
from ftnas.pipeline.exports import load
from ftnas.report.record import read_run


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Where code of a stranger's would leave its mark."""
    place = tmp_path / "executed"
    yield place
    assert not place.exists(), "a file was executed"


def test_a_pickle_in_a_data_set_executes_nothing(mark: Path, tmp_path: Path) -> None:
    rows = np.array([Exploit(mark)], dtype=object)
    np.savez(tmp_path / "a.npz", x_train=rows, y_train=rows, x_test=rows, y_test=rows, allow_pickle=True)
    with pytest.raises(DataError):
        load_data("npz", directory=tmp_path / "a.npz")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Exploit(mark)}))
    with pytest.raises(DataError, match=r"refused to load 'posix\.mkdir'"):
        load_data("cifar10", directory=folder)


def test_a_pickle_in_the_place_of_any_file_executes_nothing(mark: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        kept = file.read_bytes()
        file.write_bytes(pickle.dumps(Exploit(mark)))
        try:
            read_run(run)
        except FtnasError as error:
            assert "\n" not in str(error)
        file.write_bytes(kept)
    for name in ("a.pt2", "a.onnx", "a.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Exploit(mark)))
    for reader in (load_program, read_tensors, lambda path: load_onnx(path, image_shape=IMAGES)):
        for name in ("a.pt2", "a.onnx", "a.safetensors"):
            with pytest.raises(FtnasError):
                reader(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.mkdir [{}]", "!!python/object/new:os.mkdir [{}]", "a: !!python/name:os.mkdir"]
)
def test_a_tag_in_yaml_executes_nothing(text: str, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text.format(mark))
    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(tmp_path / "a.yaml")


WEIGHTS = "data/weights/model_weights_config.json"


def weights_of(program: Path) -> dict[str, Any]:
    """Return what a program says of its weights."""
    with zipfile.ZipFile(program) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(WEIGHTS)]
        content: dict[str, Any] = json.loads(archive.read(name))
    return content


def test_weights_of_a_program_that_are_pickled_are_refused(mark: Path, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    file = save(model, torch.zeros(2, 1, 2, 2), tmp_path / "a.pt2")
    content = weights_of(file)
    for entry in content["config"].values():
        entry["use_pickle"] = True
    bad = rewritten(file, tmp_path / "b.pt2", {WEIGHTS: json.dumps(content).encode()})
    with pytest.raises(ModelError, match="unpickles nothing"):
        load_program(bad)
    # The sample inputs are a pickle in every such file; a hostile one lies there unread.
    samples = rewritten(file, tmp_path / "c.pt2", {"data/sample_inputs/model.pt": pickle.dumps(Exploit(mark))})
    assert load_program(samples)(torch.zeros(1, 1, 2, 2)).shape == (1, 2)


def test_repeated_weights_of_a_program_fill_no_memory(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    file = save(model, torch.zeros(2, 1, 2, 2), tmp_path / "a.pt2")
    content = weights_of(file)
    meta = content["config"]["1.weight"]["tensor_meta"]
    meta["sizes"], meta["strides"] = [{"as_int": 2**20}, {"as_int": 2**12}], [{"as_int": 0}, {"as_int": 0}]
    with pytest.raises(ModelError, match="is made of 8 numbers"):
        load_program(rewritten(file, tmp_path / "b.pt2", {WEIGHTS: json.dumps(content).encode()}))


@pytest.mark.parametrize("location", ["../outside", "/etc/hostname", "link", "folder"])
def test_weights_of_onnx_outside_its_folder_are_not_read(location: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(bytes(5 * 189 * 4))
    (home / "link").symlink_to(tmp_path / "outside")
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    file = net_of(nodes, {"w": weight(5, 189)}, home / "a.onnx")
    model = onnx.load(file)
    [tensor] = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value=location)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"leads out of|which is no file"):
        load_onnx(file, image_shape=IMAGES)


def test_weights_of_onnx_beside_it_are_read(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    file = net_of(nodes, {"w": weight(5, 189)}, tmp_path / "a.onnx")
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= 5 * 189 * 4
    assert load_onnx(file, image_shape=IMAGES)(torch.zeros(2, *IMAGES)).shape == (2, 5)


def test_a_net_in_onnx_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = [
        onnx.helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        onnx.helper.make_node("ReduceMean", ["zeros"], ["mean"], keepdims=1),
        onnx.helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    file = net_of(nodes, {"shape": np.array([2**20, 2**14])}, tmp_path / "a.onnx", opset=17)
    with pytest.raises(ModelError, match="would return 68719476736 bytes"):
        load_onnx(file, image_shape=IMAGES)


CODE = """
from pathlib import Path
from torch import nn

Path({mark!r}).mkdir(exist_ok=True)
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def own_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A training of a net in a Python file that nobody has named here, and that file."""
    monkeypatch.delenv(VARIABLE, raising=False)
    file = tmp_path / "net.py"
    file.write_text(CODE.format(mark=str(tmp_path / "executed")))
    home = make_run(tmp_path / "run") / "trainings" / "own"
    model = {"python": f"{file}:net", "source": "", "bits": 8}
    write_json(home / "model.json", {"name": "own", "seed": 0, "model": model})
    save_file({"1.weight": torch.zeros(10, 64)}, home / "weights.safetensors")
    return home, file


def test_a_python_file_that_a_run_folder_names_is_not_run(own_training: tuple[Path, Path], mark: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.py: is a Python file, and running it has to be allowed.*--allow-code"):
        load(own_training[0])


def test_a_python_file_that_a_configuration_names_is_not_run(
    own_training: tuple[Path, Path], mark: Path, tmp_path: Path
) -> None:
    config = tmp_path / "training.yaml"
    config.write_text(f"net: {own_training[1]}:net\ndata: {{name: digits}}\ntraining: {{epochs: 1}}\n")
    with pytest.raises(ModelError, match="has to be allowed"):
        api.train(config, tmp_path / "out")
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(
        f"name: e\nbase: {{net: '{own_training[1]}:net'}}\naxes: {{a: {{b: {{}}}}}}\nfaults: [weights.bit_flip:0.01]\n"
    )
    assert "has to be allowed" in refused(tmp_path, "experiment", experiment, "--out", tmp_path / "out")


def test_a_python_file_that_the_user_names_is_run(own_training: tuple[Path, Path], tmp_path: Path) -> None:
    home, file = own_training
    allow_code(file)
    with pytest.raises(RunError, match="is of a net for other data"):  # the weights here are none
        load(home)
    assert (tmp_path / "executed").exists()


def test_only_absolute_paths_in_the_environment_allow_code(
    own_training: tuple[Path, Path], mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_training[1].parent)
    monkeypatch.setenv(VARIABLE, "net.py")
    with pytest.raises(ModelError, match=r"FTNAS_ALLOW_CODE: net\.py is no absolute path"):
        load(own_training[0])


def test_an_exported_net_of_ours_needs_no_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    home = exported_nets.training_folder(tmp_path, exported_nets.baseline())
    assert load(home)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
