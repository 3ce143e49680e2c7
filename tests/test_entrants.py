"""The nets of a comparison by name, and what is refused before any of them is trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import refused
from compared_nets import RECIPE, entrants, write_models

from ftnas.errors import ConfigError
from ftnas.pipeline.net_comparison import compare_config


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def test_a_baseline_that_comes_first_has_its_own_size_and_the_others_are_scaled_to_it() -> None:
    first, second = entrants(nets=["resnet20", "mobilenet_v2"], sizes=["scaled"])
    assert (first.label, first.size, second.size) == ("resnet20", "own", "scaled")
    assert second.job is not None and 0 < second.job.model["width"] != 1


def test_every_combination_of_a_baseline_is_a_net_of_its_own() -> None:
    numbers = [{}, {"feature_range": "learned"}]
    found = entrants(nets=["mobilenet_v2", "resnet20"], sizes=["own", "scaled"], numbers=numbers)
    assert len({entrant.name for entrant in found}) == len(found) == 2 + 4


def test_nets_of_one_name_in_two_files_have_two_folders(models: Path, tmp_path: Path) -> None:
    other = tmp_path / "others.py"
    shutil.copy(models, other)
    found = entrants(nets=[f"{models}:Small", f"{other}:Small"])
    assert [entrant.name for entrant in found] == ["Small-ftt", "Small-ftt-2"]
    assert [entrant.job and entrant.job.name for entrant in found] == ["Small-ftt", "Small-ftt-2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nets": []}, ["nets", "at least 1"]),
        ({"nets": ["resnet20", "resnet20"]}, ["nets", "each net once", "resnet20"]),
        ({"faults": []}, ["faults", "at least 1"]),
        ({"faults": ["weights.nonsense:0.1"]}, ["weights.nonsense", "weights.bit_flip"]),
        ({"sizes": ["huge"]}, ["sizes.0", "huge", "scaled"]),
        ({"trainings": []}, ["trainings", "at least 1"]),
        ({"campaign": {"chips": 5}}, ["campaign.chips", "20", "5"]),
        ({"bits": 1}, ["bits", "2", "1"]),
        ({"batch": 1}, ["batch", "unknown key", "nets"]),
    ],
)
def test_an_impossible_comparison_is_refused_with_key_and_value(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compare_config({"nets": ["mobilenet_v2"], **RECIPE, **changes}, source="mine.yaml")
    message = str(caught.value)
    assert [word for word in ("mine.yaml", *words) if word not in message] == []


def test_a_comparison_without_images_or_faults_is_refused(tmp_path: Path, models: Path) -> None:
    out = ["--out", tmp_path / "out"]
    assert "data: this key is required" in refused(tmp_path, "compare", f"{models}:small", *out)
    assert "faults: this key is required" in refused(tmp_path, "compare", f"{models}:small", "--data", "digits", *out)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("MODELS:Missing", ["models.py", "Missing", "Small"]),
        ("MODELS", ["models.py", "FILE.py:NAME"]),
        ("nowhere", ["nowhere", "neither a run folder nor a training"]),
        ("nowhere.onnx", ["nowhere.onnx"]),
    ],
)
def test_a_net_that_is_none_is_refused_before_anything_is_trained(
    net: str, words: list[str], tmp_path: Path, models: Path
) -> None:
    text = net.replace("MODELS", str(models))
    options = ["--data", "digits", "--faults", "weights.bit_flip:1e-3", "--out", tmp_path / "out"]
    line = refused(tmp_path, "compare", "mobilenet_v2", text, *options)
    assert [word for word in words if word not in line] == []
