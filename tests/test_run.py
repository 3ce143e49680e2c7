"""A whole run: what it leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from command_line import SMOKE, contents
from quick_runs import ftnas

from ftnas.files import read_json, read_tensors
from ftnas.pipeline.config import load_config
from ftnas.space import Genotype, SearchSpace

ROW_KEYS = {"name", "label", "family", "training", "size", "macs", "flops", "parameters", "weight_bits", "seed"} | {
    "clean",
    "fault",
    "rates",
}


# Some of the digits, and a baseline of few layers, do for what a run leaves behind.
FEW = ("data.train_images=300", "data.test_images=100", "comparison.baselines=[vgg16]")
OPTIONS = [word for assignment in FEW for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a whole run, and what its command printed as JSON."""
    run = tmp_path_factory.mktemp("smoke") / "run"
    return run, ftnas("search", SMOKE, "--run", run, *OPTIONS, "--json")


@pytest.fixture(scope="module")
def smoke(searched: tuple[Path, str]) -> Path:
    return searched[0]


def test_a_search_as_json_prints_nothing_else(searched: tuple[Path, str]) -> None:
    run, printed = searched
    found = json.loads(printed)
    assert (found["folder"], found["report"]) == (str(run), str(run / "report.html"))
    assert found["comparison"] == read_json(run / "comparison.json")


def test_a_run_writes_down_its_configuration_and_space(smoke: Path) -> None:
    assert load_config(smoke / "config.yaml") == load_config(SMOKE, assignments=FEW)
    space = yaml.safe_load((smoke / "space.yaml").read_text(encoding="utf-8"))
    assert SearchSpace.model_validate(space).name == "tiny"


def test_a_run_writes_down_versions_seed_and_command(smoke: Path) -> None:
    keys = {"ftnas", "python", "torch", "optuna", "numpy", "platform", "cores", "threads", "seed", "started", "command"}
    assert keys <= read_json(smoke / "environment.json").keys()


def test_a_run_keeps_its_supernet(smoke: Path) -> None:
    history = read_json(smoke / "supernet" / "history.json")
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert {"loss", "clean_loss", "faulty_loss", "seconds"} <= history[0].keys()
    weights = read_json(smoke / "supernet" / "architecture_weights.json")
    assert all(sum(row) == pytest.approx(1) for row in weights["normal"]["operators"])
    tensors, _ = read_tensors(smoke / "supernet" / "supernet.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"supernet", "architecture"}


def test_a_run_keeps_every_candidate_and_what_the_supernet_proposed_comes_first(smoke: Path) -> None:
    rows = read_json(smoke / "study" / "candidates.json")
    assert len({row["key"] for row in rows}) == len(rows) == 6
    assert rows[0]["source"] == "magnitude"
    assert {row["source"] for row in rows[2:]} == {"sampler"}
    assert all(Genotype.from_dict(row["genotype"]).key == row["key"] for row in rows)
    assert all(len(row["chips"]) == 2 and row["flops"] == 2 * row["macs"] for row in rows)


def test_the_candidates_as_csv_are_those_as_json(smoke: Path) -> None:
    with (smoke / "study" / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    whole = read_json(smoke / "study" / "candidates.json")
    assert [(row["key"], float(row["faulty"]), int(row["flops"])) for row in rows] == [
        (row["key"], row["faulty"], row["flops"]) for row in whole
    ]


def test_no_candidate_is_better_than_one_of_the_front(smoke: Path) -> None:
    rows = {row["key"]: row for row in read_json(smoke / "study" / "candidates.json")}
    front = [rows[key] for key in read_json(smoke / "study" / "front.json")]
    assert front
    assert not any(
        row["faulty"] > best["faulty"] and row["flops"] <= best["flops"] for row in rows.values() for best in front
    )


def test_leaders_are_scored_on_fresh_chips_and_come_best_first(smoke: Path) -> None:
    rows = read_json(smoke / "study" / "leaders.json")
    assert all(len(row["fresh_chips"]) == 2 for row in rows)
    assert [row["fresh_faulty"] for row in rows] == sorted((row["fresh_faulty"] for row in rows), reverse=True)


def test_every_training_leaves_its_model_history_weights_and_result(smoke: Path) -> None:
    folders = sorted((smoke / "trainings").iterdir())
    families = {folder.name.partition("-")[0].rstrip("0123456789") for folder in folders}
    assert {"top", "random", "winner", "matched", "vgg"} >= families >= {"top", "random", "winner"}
    for folder in folders:
        assert {file.name for file in folder.iterdir()} == {
            "model.json", "history.json", "result.json", "weights.safetensors"
        }  # fmt: skip
        history = read_json(folder / "history.json")
        assert [row["epoch"] for row in history] == [0, 1]
        assert {"loss", "clean_accuracy", "seconds"} <= history[0].keys()
        assert read_json(folder / "result.json").keys() >= ROW_KEYS
        assert read_tensors(folder / "weights.safetensors")[0]


def test_the_winner_is_one_of_the_leaders_and_heads_the_comparison(smoke: Path) -> None:
    result = read_json(smoke / "winner" / "result.json")
    genotype = Genotype.from_dict(read_json(smoke / "winner" / "genotype.json"))
    assert genotype.key == result["key"]
    assert result["key"] in {row["key"] for row in read_json(smoke / "study" / "leaders.json")[:2]}
    assert read_json(smoke / "comparison.json")["rows"][0] == result
    assert (smoke / "winner" / "genotype.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_comparison_has_an_interval_over_chips_at_every_rate(smoke: Path) -> None:
    content = read_json(smoke / "comparison.json")
    assert (content["fault"], content["rate"], content["chips"]) == ("features.mac_bit_bias", 3e-3, 20)
    assert any(row["label"].startswith("vgg16") for row in content["rows"])
    for row in content["rows"]:
        assert [rate["rate"] for rate in row["rates"]] == [3e-3, 1e-3]
        for rate in row["rates"]:
            assert len(rate["chips"]) == 20
            assert rate["low"] <= rate["mean"] <= rate["high"]


def test_the_comparison_as_csv_has_every_net(smoke: Path) -> None:
    names = [row["label"] for row in read_json(smoke / "comparison.json")["rows"]]
    for file in ("comparison.csv", "comparison.md"):
        text = (smoke / file).read_text(encoding="utf-8")
        assert [name for name in names if name not in text] == []


def test_the_ranking_compares_supernet_scores_with_all_short_trainings(smoke: Path) -> None:
    ranking = read_json(smoke / "ranking.json")
    assert (
        ranking["n"]
        == len(ranking["points"])
        == len(list(smoke.glob("trainings/top*"))) + len(list(smoke.glob("trainings/random*")))
    )
    assert {"low", "mean", "high"} <= ranking["gain_over_random"].keys()
    for name in ("tau_clean", "tau_faulty", "tau_flops", "tau_parameters"):
        if name in ranking:
            assert ranking[name]["low"] <= ranking[name]["value"] <= ranking[name]["high"]


def test_a_run_leaves_warnings_events_and_a_report(smoke: Path) -> None:
    assert all(isinstance(text, str) for text in read_json(smoke / "warnings.json"))
    assert list((smoke / "tensorboard").glob("events.out.tfevents.*"))
    assert "<html" in (smoke / "report.html").read_text(encoding="utf-8")
    assert (smoke / "study" / "journal.log").stat().st_size > 0


def test_a_run_leaves_no_part_of_a_file_behind(smoke: Path) -> None:
    locks = (".lock", ".checksums.lock")  # empty, and held by nobody
    left = [path for path in smoke.rglob("*") if path.name.startswith(".") or "checkpoint" in path.name]
    assert [path for path in left if path.name not in locks] == []


def test_the_same_command_again_changes_no_file(smoke: Path) -> None:
    before = contents(smoke)
    ftnas("search", SMOKE, "--run", smoke, *OPTIONS)
    assert contents(smoke) == before
