"""The configuration of a run: what it reads, what it writes, and how it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ftnas.errors import ConfigError
from ftnas.pipeline.config import RunConfig, load_config
from ftnas.training import TrainingSettings


def is_of_cells(path: Path) -> bool:
    """Tell a search for cells from grids of trainings and searches for spiking nets, which have other keys."""
    keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    return "search" in keys and "axes" not in keys and keys.get("family", "cells") == "cells"


EXPERIMENTS = [path for path in sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml")) if is_of_cells(path)]
LEAST = {"name": "test", "faults": ["features.mac_bit_bias:1e-3"], "search": {"trials": 3}}


def written(folder: Path, **changes: Any) -> Path:
    """Write the least configuration there is, with ``changes``."""
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(LEAST | changes), encoding="utf-8")
    return path


def refusal(path: Path, *assignments: str, data_directory: Path | None = None) -> list[str]:
    """Return the lines with which the configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, assignments=assignments, data_directory=data_directory)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_survives_yaml(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(copy) == config


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_named_after_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_a_configuration_that_differs_from_all_defaults_survives_yaml(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        faults=["weights.stuck_cell:0.08", "features.bit_flip:1e-3"],
        search={"trials": 7, "sampler": "tpe", "max_flops": 12345, "objective": "reward"},
        supernet={"augmentation": {"crop_padding": 2, "flip": True, "cutout": 3}},
        campaign={"rates": [0.5, 1e-4]},
        comparison={
            "baselines": ["resnet18"],
            "sizes": ["own", "scaled"],
            "numbers": [{"weight_bits": 4, "feature_range": "fixed(2)"}],
        },
    )
    config = load_config(path)
    assert RunConfig.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_the_yaml_of_a_configuration_holds_the_defaults(tmp_path: Path) -> None:
    content = yaml.safe_load(load_config(written(tmp_path)).to_yaml())
    assert content.keys() == RunConfig.model_fields.keys()
    assert content["training"].keys() == TrainingSettings.model_fields.keys()
    assert content["faults"] == ["features.mac_bit_bias:0.001"]


def test_an_assignment_is_the_same_as_the_key_in_the_file(tmp_path: Path) -> None:
    changed = load_config(written(tmp_path), assignments=["training.epochs=3", "campaign.rates=[0.1, 0.2]"])
    assert changed == load_config(written(tmp_path, training={"epochs": 3}, campaign={"rates": [0.1, 0.2]}))


def test_the_last_of_several_assignments_counts(tmp_path: Path) -> None:
    assert load_config(written(tmp_path), assignments=["seed=1", "seed=2"]).seed == 2


def test_the_data_directory_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, data={"name": "npz", "directory": "a.npz", "train_images": 200})
    config = load_config(path, data_directory=Path("b: c.npz"))
    assert (config.data.directory, config.data.train_images) == ("b: c.npz", 200)


def test_a_space_file_is_found_beside_the_experiment(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, space="mine.yaml"))
    assert config.space == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("nonsense=1", ["nonsense", "unknown key", "campaign", "training"]),
        ("search.trails=5", ["search.trails", "unknown key", "trials"]),
        ("supernet.augmentation.flop=1", ["supernet.augmentation.flop", "crop_padding", "cutout", "flip"]),
        ("search.trials=many", ["search.trials", "integer", "'many'"]),
        ("search.trials=0", ["search.trials", "greater than or equal to 1", "0"]),
        ("search.sampler=cmaes", ["search.sampler", "nsga2", "tpe", "gp", "random", "'cmaes'"]),
        ("search.controller=ray", ["search.controller", "optuna", "nni-evolution", "'ray'"]),
        ("supernet.relaxation=hard", ["supernet.relaxation", "softmax", "gumbel", "uniform", "'hard'"]),
        ("device=tpu", ["device", "auto", "cpu", "cuda", "'tpu'"]),
        ("name=a/b", ["name", "'a/b'"]),
        ("data.name=mnist", ["data.name", "digits", "cifar10", "npz", "'mnist'"]),
        ("data=digits", ["data", "'digits'"]),
        ("data.train_images=5", ["data.train_images", "100"]),
        ("faults=[features.mac_bit_bias:1.5]", ["faults.0", "1.5"]),
        ("faults=[features.mac_bit_bias:-0.1]", ["faults.0", "-0.1"]),
        ("faults=[features.mac_bit_bias:.nan]", ["faults.0", "nan"]),
        ("faults=[features.rust:0.1]", ["faults.0", "features.rust", "features.mac_bit_bias"]),
        ("faults=[features.mac_bit_bias]", ["faults.0", "features.mac_bit_bias"]),
        ("faults=[3]", ["faults.0", "3"]),
        ("faults=[]", ["faults", "at least 1 needed"]),
        ("campaign.rates=[0.1, 1.5]", ["campaign.rates.1", "less than or equal to 1", "1.5"]),
        ("campaign.rates=[-0.1]", ["campaign.rates.0", "greater than or equal to 0", "-0.1"]),
        ("campaign.chips=5", ["campaign.chips", "20", "5"]),
        ("supernet.faulty_share=2", ["supernet.faulty_share", "1", "2"]),
        ("comparison.baselines=[resnet21]", ["comparison.baselines.0", "resnet20", "w_ftt_net_20", "'resnet21'"]),
        ("comparison.sizes=[huge]", ["comparison.sizes.0", "own", "scaled", "'huge'"]),
        ("comparison.trainings=[both]", ["comparison.trainings.0", "fault-tolerant", "plain", "'both'"]),
        ("comparison.numbers=[{bits: 4}]", ["comparison.numbers.0", "bits", "weight_bits"]),
        ("finalists.top=50", ["finalists.top", "scoring.leaders", "50"]),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_what_is_allowed(
    assignment: str, words: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path)
    (line,) = refusal(path, assignment)
    assert line.startswith(f"{path}: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("search.trials", ["KEY=VALUE"]),
        ("=3", ["KEY=VALUE"]),
        ("name.first=3", ["name", "not a section"]),
        ("search.trials=[", ["'['", "YAML"]),
    ],
)
def test_a_wrong_assignment_is_one_line_that_repeats_it(assignment: str, words: list[str], tmp_path: Path) -> None:
    (line,) = refusal(written(tmp_path), assignment)
    assert line.startswith(f"--set {assignment}: ")
    assert [word for word in words if word not in line] == []


def test_every_mistake_has_a_line_of_its_own(tmp_path: Path) -> None:
    lines = refusal(written(tmp_path), "nonsense=1", "search.trials=0", "data.name=mnist")
    assert sorted(line.split(": ")[1] for line in lines) == ["data.name", "nonsense", "search.trials"]


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text("name: test\nsearch: {}\n")
    assert refusal(path) == [f"{path}: faults: this key is required"]


def test_npz_needs_a_file(tmp_path: Path) -> None:
    (line,) = refusal(written(tmp_path), "data.name=npz")
    assert "data.directory" in line
    assert ".npz" in line


@pytest.mark.parametrize("data", ["digits", None, [1]])
def test_a_data_section_of_the_wrong_kind_is_refused_beside_a_data_directory_too(data: Any, tmp_path: Path) -> None:
    path = written(tmp_path, data=data)
    (line,) = refusal(path, data_directory=tmp_path)
    assert line.startswith(f"{path}: data: ")


@pytest.mark.parametrize(
    ("content", "word"),
    [("name: [", "YAML"), ("- a\n- b\n", "mapping"), ("", "mapping"), ("\x00", "YAML")],
)
def test_a_file_that_is_no_yaml_mapping_is_one_line(content: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(content)
    (line,) = refusal(path)
    assert line.startswith(f"{path}: ")
    assert word in line


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    (line,) = refusal(tmp_path / name)
    assert line.startswith(f"{tmp_path / name}: cannot be read")
