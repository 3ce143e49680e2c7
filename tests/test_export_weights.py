from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_nets import baseline, data, found, own, own_float, training_folder
from torch import nn

import ftnas
from ftnas.errors import FtnasError, ModelError
from ftnas.export.tracing import graph_of
from ftnas.export.weights import load_weights, save_weights
from ftnas.faults import inject, quantize, sites
from ftnas.files import write_tensors
from ftnas.pipeline.checkpoints import Checkpoint


def same(one: nn.Module, other: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(one(data().test_images), other(data().test_images))


def changed(folder: Path, **changes: Any) -> Path:
    """Write the found net into ``folder`` and change its JSON; a value of ``None`` takes a key away."""
    (file, description) = save_weights(folder / "net.safetensors", found().model, found().spec)
    content = json.loads(description.read_text(encoding="utf-8")) | changes
    description.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return file


@pytest.mark.parametrize("net", [found, baseline], ids=["found", "baseline"])
@pytest.mark.parametrize("name", ["", "net.safetensors", "net.json"])
def test_a_net_comes_back_from_its_files_to_the_bit(tmp_path: Path, net: Any, name: str) -> None:
    save_weights(tmp_path / "net.safetensors", net().model, net().spec, facts={"data": "digits"})
    loaded = load_weights(tmp_path / name)
    assert same(loaded, net().model)
    assert not loaded.training
    assert str(sites(loaded)) == str(sites(net().model))


@pytest.mark.parametrize("net", [found, baseline, own], ids=["found", "baseline", "own"])
@pytest.mark.parametrize("fault", ["weights.bit_flip:3e-2", "weights.stuck_cell:0.2"])
def test_a_faulty_twin_computes_what_its_chip_computes_and_keeps_its_formats(
    tmp_path: Path, net: Any, fault: str
) -> None:
    clean: Checkpoint = net()
    twin = graph_of(clean.model, data().test_images[:1], name="net", faults=fault, chip=3)
    save_weights(tmp_path / "net.safetensors", clean.model, clean.spec, twin=twin)
    loaded = load_weights(tmp_path, model=None if clean.spec else copy.deepcopy(clean.model))
    with inject(clean.model, fault, chip=3, study="campaign"), torch.no_grad():
        expected = clean.model(data().test_images)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(loaded)(data().test_images), expected)
    assert not same(loaded, clean.model)
    assert str(sites(loaded)) == str(sites(clean.model))


def test_a_net_of_ones_own_is_loaded_into_one_that_is_given(tmp_path: Path) -> None:
    save_weights(tmp_path / "net.safetensors", own(bits=5).model, None)
    with pytest.raises(ModelError, match=r"OwnNet, a net of your own.*ftnas\.load\(path, model=faults\.quantize"):
        load_weights(tmp_path)
    other = quantize(own_float(), torch.zeros(2, 1, 8, 8))
    assert same(load_weights(tmp_path, model=other), own(bits=5).model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 7, "ftnas": "9.1"}, "schema 7, written by ftnas 9.1; this one reads 1"),
        ({"schema": "one"}, "schema must be 1, got 'one'"),
        ({"net": None}, "does not describe a net"),
        ({"net": {"image_shape": [1, 8, 8], "classes": 10}}, "key 'space' is missing"),
        ({"net": {"image_shape": [1, 8], "classes": 10}}, "net.json: net: "),
        ({"net": {"image_shape": [1, 8, 8], "classes": -1}}, "must be positive"),
        ({"net": {**(baseline().spec or {}), "baseline": "alexnet"}}, "unknown baseline 'alexnet'"),
        ({"net": baseline().spec}, "does not fit the net in net.json"),
        ({"weight_numbers": {"stem": {"bits": 99, "scale": 1.0, "signed": True}}}, "bits must be 2..16"),
        ({"weight_numbers": {"stem": 3}}, "weight_numbers: stem"),
        ({"weight_numbers": {"nowhere": {"bits": 8, "scale": 1.0, "signed": True}}}, "nowhere is no layer"),
    ],
)
def test_a_description_that_is_wrong_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    file = changed(tmp_path, **changes)
    with pytest.raises(ModelError) as error:
        load_weights(file)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "net.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", '"net"'])
def test_a_description_that_is_damaged_is_one_line(tmp_path: Path, text: str) -> None:
    file = changed(tmp_path)
    file.with_suffix(".json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"^[^\n]*net\.json: [^\n]+$"):
        load_weights(file)


def test_weights_that_are_cut_off_are_one_line(tmp_path: Path) -> None:
    file = changed(tmp_path)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"^[^\n]*net\.safetensors: is not a whole safetensors file[^\n]*$"):
        load_weights(file)


def test_a_folder_of_several_nets_and_one_of_none_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no \.safetensors file"):
        load_weights(tmp_path)
    changed(tmp_path)
    write_tensors(tmp_path / "other.safetensors", {})
    with pytest.raises(ModelError, match=r"holds 2 .*net\.safetensors, other\.safetensors; name one"):
        load_weights(tmp_path)
    with pytest.raises(ModelError, match=r"other\.json: is not there"):
        load_weights(tmp_path / "other.safetensors")


@pytest.mark.parametrize("net", [found, baseline], ids=["found", "baseline"])
def test_ftnas_loads_a_training_without_its_data(tmp_path: Path, net: Any) -> None:
    home = training_folder(tmp_path, net())
    config = home.parent.parent / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("name: digits", "name: cifar10"), encoding="utf-8")
    assert same(ftnas.load(home), net().model)


def test_ftnas_loads_what_was_exported(tmp_path: Path) -> None:
    assert same(ftnas.load(changed(tmp_path)), found().model)
    assert same(ftnas.load(str(tmp_path)), found().model)


def test_a_path_that_is_no_net_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FtnasError, match=r"^[^\n]+nothing[^\n]+$"):
        ftnas.load(tmp_path / "nothing")


def test_importing_ftnas_does_not_wait_for_torch() -> None:
    code = "import sys, ftnas; print('torch' in sys.modules, hasattr(ftnas, 'other'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
