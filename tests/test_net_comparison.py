"""Any nets side by side: what is trained, what is taken as it is, and what the table says of each."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from command_line import contents, refused
from command_line import ftnas as tried
from compared_nets import RECIPE, entrants, write_models
from quick_runs import QUICK

from ftnas import api
from ftnas.errors import FtnasError, ModelError
from ftnas.files import read_json
from ftnas.pipeline.comparison import compare
from ftnas.pipeline.config import CompareConfig, RunConfig
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.net_comparison import compare_config, compare_nets
from ftnas.pipeline.nets import load_net
from ftnas.pipeline.run_folder import open_run
from ftnas.runtime import choose_device, keyed_generator
from ftnas.space import load_space


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a search that has only trained and measured a winner."""
    config = RunConfig.model_validate(QUICK | RECIPE)
    found = open_run(tmp_path_factory.mktemp("search") / "run", config, load_space(config.space))
    winner = found.space.canonical(found.space.sample(keyed_generator("winner")))
    compare(found, load_dataset(config, choose_device("cpu")), winner, config.comparison)
    return found.path


@pytest.fixture(scope="module")
def config(run: Path, models: Path) -> CompareConfig:
    winner = run / "trainings" / read_json(run / "winner" / "result.json")["name"]
    nets = [run, f"{models}:Small", f"{models}:small", "resnet20", winner]
    given = {"nets": list(map(str, nets)), "trainings": ["fault-tolerant", "plain"], "campaign": {"rates": [3e-3]}}
    return compare_config(given, source="test")


@pytest.fixture(scope="module")
def compared(config: CompareConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare_nets(config, tmp_path_factory.mktemp("compared") / "out").folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(folder / "comparison.json")["rows"]
    return rows


def test_a_net_is_trained_where_a_name_stands_for_no_weights(compared: Path) -> None:
    found = [(row["label"], row["training"]) for row in rows_of(compared)]
    assert [training for _, training in found] == [
        "given", "fault-tolerant", "plain", "given", "fault-tolerant", "plain", "given",
    ]  # fmt: skip
    assert [label for label, _ in found[1:4]] == ["Small", "Small", "small"]
    assert sorted(path.name for path in (compared / "trainings").iterdir()) == [
        "Small-ftt", "Small-plain", "resnet20-scaled-ftt", "resnet20-scaled-plain",
    ]  # fmt: skip


def test_the_table_says_of_every_net_how_it_came_to_its_weights(compared: Path, models: Path) -> None:
    origins = [row["origin"] for row in rows_of(compared)]
    assert origins[0].startswith("taken from ") and "fault-tolerant under features.mac_bit_bias:0.03" in origins[0]
    assert origins[1] == "trained here, fault-tolerant under features.mac_bit_bias:0.03, 1 epoch"
    assert origins[2] == "trained here, plain, 1 epoch"
    assert origins[3] == f"taken from {models}:small, quantised to 8 bits"
    text = (compared / "comparison.md").read_text(encoding="utf-8")
    assert [origin for origin in origins if origin not in text] == []


def test_all_nets_are_measured_on_the_chips_of_the_run_itself(compared: Path, run: Path) -> None:
    [own] = [row for row in rows_of(run) if row["family"] == "winner"]
    first = rows_of(compared)[0]
    assert (first["clean"], first["rates"][0]["rate"]) == (own["clean"], own["rates"][0]["rate"])
    assert first["rates"][0]["chips"] == own["rates"][0]["chips"]


def test_a_net_against_itself_is_level_without_a_difference(compared: Path) -> None:
    first, *_, same = rows_of(compared)
    assert same["rates"] == first["rates"]
    assert [(d["mean"], d["low"], d["high"]) for d in same["differences"]] == [(0, 0, 0), (0, 0, 0)]


def test_a_difference_is_that_of_the_same_chips_with_students_interval(compared: Path) -> None:
    first, *others = rows_of(compared)
    for row in others:
        for index, found in enumerate(row["differences"]):
            of_chips = np.subtract(row["rates"][index]["chips"], first["rates"][index]["chips"])
            spread = scipy.stats.t.ppf(0.975, len(of_chips) - 1) * scipy.stats.sem(of_chips)
            expected = [of_chips.mean(), of_chips.mean() - spread, of_chips.mean() + spread]
            assert [found["mean"], found["low"], found["high"]] == pytest.approx(np.clip(expected, -1, 1))


def test_a_win_is_called_where_intervals_do_not_overlap(compared: Path) -> None:
    first = rows_of(compared)[0]["rates"]
    with (compared / "comparison.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 14
    for line in lines[2:]:
        [theirs] = [score for score in first if score["rate"] == float(line["rate"])]
        better, worse = float(line["low"]) > theirs["high"], float(line["high"]) < theirs["low"]
        assert line["verdict"] == ("better" if better else "worse" if worse else "level")
        assert float(line["difference"]) == pytest.approx(float(line["mean"]) - theirs["mean"])


def test_what_was_trained_for_the_comparison_is_a_net_like_any_other(compared: Path) -> None:
    [row] = [row for row in rows_of(compared) if row["name"] == "Small-ftt"]
    found = load_net(str(compared / "trainings" / "Small-ftt"))
    images, labels = found.data.test_images, found.data.test_labels
    assert float((found.model(images).argmax(1) == labels).double().mean()) == row["clean"]


def test_a_comparison_has_a_page_that_names_every_net(compared: Path) -> None:
    page = (compared / "report.html").read_text(encoding="utf-8")
    assert [row["label"] for row in rows_of(compared) if row["label"] not in page] == []


def test_a_comparison_leaves_no_part_of_a_file_behind(compared: Path) -> None:
    left = [path for path in compared.rglob("*") if path.name.startswith(".") or "checkpoint" in path.name]
    assert [path for path in left if not path.name.endswith(".lock")] == []


def test_the_same_comparison_again_changes_no_file(compared: Path, config: CompareConfig) -> None:
    before = contents(compared)
    compare_nets(config, compared)
    assert contents(compared) == before


@pytest.mark.parametrize("lost", ["a chip", "the tables", "a training"])
def test_a_comparison_that_was_cut_off_ends_in_the_same_bytes(
    lost: str, compared: Path, config: CompareConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(compared, folder)
    for file in folder.glob("comparison.*"):
        file.unlink()
    records = folder / "campaigns" / "Small-ftt" / "records.jsonl"
    if lost == "a chip":  # and half of the line of another
        lines = records.read_bytes().splitlines(keepends=True)
        records.write_bytes(b"".join(lines[:-2]) + lines[-2][:40])
    if lost == "a training":
        shutil.rmtree(records.parent)
        shutil.rmtree(folder / "trainings" / "Small-ftt")
    compare_nets(config, folder)
    before = contents(compared)
    assert [name for name, content in contents(folder).items() if content != before[name]] == (
        ["trainings/Small-ftt/history.json"] if lost == "a training" else []  # it holds times
    )


def test_what_a_comparison_does_not_say_is_as_in_its_first_run(run: Path, config: CompareConfig) -> None:
    recipe = RunConfig.model_validate(api.read_yaml(run / "config.yaml"))
    assert (config.data, config.faults, config.training) == (recipe.data, recipe.faults, recipe.training)
    assert config.campaign.rates == (3e-3,)


def test_other_faults_bring_their_own_rates_and_another_data_set_its_own_place(run: Path) -> None:
    given = {"nets": [str(run)], "faults": ["weights.bit_flip:1e-2"], "data": {"name": "cifar10"}}
    config = compare_config(given, source="test")
    assert config.campaign.rates == ()
    assert (config.data.train_images, config.data.directory) == (None, None)


def test_a_run_need_not_come_first_to_say_how_nets_are_measured(run: Path) -> None:
    config = compare_config({"nets": ["mobilenet_v2", str(run)]}, source="test")
    assert str(config.faults[0]) == "features.mac_bit_bias:0.03"


def test_a_net_that_diverged_in_training_is_measured_as_guessing_and_said_to(models: Path, tmp_path: Path) -> None:
    recipe = RECIPE | {"training": {"epochs": 2, "batch_size": 32, "learning_rate": 1e30}}
    config = CompareConfig.model_validate(recipe | {"nets": (f"{models}:Small",)})
    found = compare_nets(config, tmp_path / "out").comparison
    [row] = found["rows"]
    assert row["failure"].startswith("diverged")
    assert {row["clean"], *row["rates"][0]["chips"]} == {0.1}
    assert any("Small diverged" in text for text in found["warnings"])
    with pytest.raises(ModelError, match="not finite"):
        entrants(nets=[str(tmp_path / "out" / "trainings" / "Small-ftt")])


def test_a_net_of_other_images_is_refused(run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    shape = (120, 3, 8, 8)
    np.savez(
        images, x_train=np.zeros(shape), y_train=np.arange(120) % 4, x_test=np.zeros(shape), y_test=np.arange(120) % 4
    )
    options = ["--data", "npz", "--data-dir", images, "--out", tmp_path / "out"]
    line = refused(tmp_path, "compare", run, *options)
    assert [word for word in ("weights.safetensors", "npz", "3x8x8", "4 classes") if word not in line] == []


def test_a_folder_of_something_else_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    line = refused(tmp_path, "compare", run, "--out", tmp_path)
    assert [word for word in (str(tmp_path), "not a comparison", "--out") if word not in line] == []


def test_a_folder_of_another_comparison_is_refused(run: Path, compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "out")
    options = ["--out", tmp_path / "out", "--set", "campaign.rates=[3e-3]"]
    line = refused(tmp_path, "compare", run, "vgg16", *options)
    assert [word for word in ("another configuration", "nets", "--out") if word not in line] == []


def test_rates_of_several_faults_that_are_not_in_proportion_are_refused(run: Path, tmp_path: Path) -> None:
    faults = ["--faults", "weights.bit_flip:1e-3,1e-2", "--faults", "features.bit_flip:1e-3"]
    line = refused(tmp_path, "compare", run, *faults, "--out", tmp_path / "out")
    assert [word for word in ("in proportion", "features.bit_flip:0.01") if word not in line] == []


def test_the_command_prints_a_line_for_each_net_and_the_rule(compared: Path, config: CompareConfig) -> None:
    result = tried("compare", *config.nets, "--training", "fault-tolerant", "--training", "plain", "--out", compared,
                   "--set", "campaign.rates=[3e-3]")  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stdout.splitlines()
    assert [row["origin"] for row in rows_of(compared) if not any(row["origin"] in line for line in lines)] == []
    assert "do not overlap" in result.stdout


def test_the_first_rate_of_the_command_is_the_one_that_is_trained_for(
    monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    given: list[CompareConfig] = []

    def note(config: CompareConfig, folder: Path) -> None:
        given.append(config)
        raise FtnasError("enough")

    monkeypatch.setattr(api, "compare_nets", note)
    options = ["--faults", "features.mac_bit_bias:1e-2,1e-3,1e-1", "--chips", "30", "--epochs", "7", "--bits", "6"]
    refused(tmp_path, "compare", run, *options)
    [config] = given
    assert (str(config.faults[0]), config.campaign.rates) == ("features.mac_bit_bias:0.01", (1e-3, 1e-1))
    assert (config.campaign.chips, config.training.epochs, config.training.batch_size, config.bits) == (30, 7, 32, 6)


@pytest.mark.parametrize(
    ("arguments", "joins"),
    [
        (["RUN"], True),
        (["RUN", "resnet20", "--size", "own"], True),
        (["RUN", "resnet20", "--data", "digits"], False),
        (["RUN", "--faults", "weights.bit_flip:1e-3"], False),
        (["RUN", "RUN/trainings"], False),
        (["RUN", "--out", "somewhere"], False),
        (["resnet20", "RUN"], False),
    ],
)
def test_a_search_and_baselines_alone_join_its_own_table(
    arguments: list[str], joins: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []

    def note(joined: bool) -> None:
        called.append(joined)
        raise FtnasError("enough")

    monkeypatch.setattr("ftnas.pipeline.run.compare_run", lambda *_: note(True))
    monkeypatch.setattr(api, "compare_nets", lambda *_: note(False))
    assert tried("compare", *(text.replace("RUN", str(run)) for text in arguments)).exit_code == 2
    assert called == [joins]
