"""Evolutions from the command line: a run folder that survives a kill, the page, the experiment, and mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import contents, ftnas, lacking, refused

from ftnas import api
from ftnas.holding import OWN_FILES
from ftnas.pipeline import evolution
from ftnas.pipeline.evolution_config import GraphSearchConfig, graph_config
from ftnas.pipeline.families import FAMILIES, SearchFinding
from ftnas.spiking.graph.network_file import read_network

ROOT = Path(__file__).parents[1]
QUICK: dict[str, Any] = {
    "family": "snn-graph",
    "name": "quick",
    "task": "iris",
    "chips": 2,
    "evolution": {"population": 12, "generations": 4},
    "measurement": {"faults": ["weights.gaussian:0.2,0.1"], "chips": 4, "fresh_chips": 3, "leaders": 3},
}


def written(folder: Path, content: dict[str, Any] = QUICK) -> Path:
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evolution")
    result = ftnas("search", written(folder), "--run", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_a_search_writes_front_winner_figures_and_page(run: Path):
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    names = {"evolution.yaml", "environment.json", "results.json", "front.csv", "report.html"}
    assert {file.name for file in run.iterdir()} - OWN_FILES == names | {"nets", "winner", "figures"}
    assert {file.stem for file in (run / "nets").iterdir()} == {net["key"] for net in results["nets"]}
    figures = {f"{name}.{kind}" for name in ("front", "network", "raster", "history") for kind in ("svg", "png")}
    assert {file.name for file in (run / "figures").iterdir()} == figures
    assert read_network(run / "winner" / "network.json").genome.key == results["winner"]
    assert len(results["history"]) == 5
    rows = list(csv.DictReader((run / "front.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * len(results["nets"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4 and results["sentence"] in page


def test_the_same_command_changes_nothing_and_says_the_same(run: Path):
    before = contents(run)
    config = run.parent / "quick.yaml"
    first, second = (ftnas("search", config, "--run", run, *more) for more in ((), ("--json",)))
    assert contents(run) == before
    found = json.loads(second.stdout)
    assert (found["winner"], found["folder"]) == (json.loads(before["results.json"])["winner"], str(run))
    assert f"{found['winner']} (winner)" in first.stdout and "report:" in first.stdout


@pytest.mark.parametrize("method", ["nsga2", "scalar"])
def test_a_killed_evolution_ends_with_the_same_bits(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = GraphSearchConfig.model_validate(QUICK | {"evolution": QUICK["evolution"] | {"method": method}})
    whole = evolution.search_graphs(config, tmp_path / "whole")
    plain = evolution.next_generation

    def killed(after: int) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            found = plain(*arguments)
            if found.number == after:
                raise KeyboardInterrupt
            return found

        return step

    for after in (1, 3):
        monkeypatch.setattr(evolution, "next_generation", killed(after))
        with pytest.raises(KeyboardInterrupt):
            evolution.search_graphs(config, tmp_path / "cut")
    monkeypatch.setattr(evolution, "next_generation", plain)
    assert evolution.search_graphs(config, tmp_path / "cut") == whole
    one, other = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    for name in (*OWN_FILES, "environment.json"):
        one.pop(name, None)
        other.pop(name, None)
    assert one == other


def test_the_page_is_written_again_from_the_folder(run: Path):
    before = contents(run)
    (run / "report.html").unlink()
    assert ftnas("report", run).stdout.strip() == str(run / "report.html")
    after = contents(run)
    assert {name: after[name] for name in after if name not in OWN_FILES} == {
        name: before[name] for name in before if name not in OWN_FILES
    }
    assert "takes no --out" in refused(run, "report", run, "--out", run.parent / "page.html")
    assert "takes no --out" in refused(run, "report", run, run, "--out", run.parent / "page.html")


def test_an_evolution_that_is_not_finished_has_no_page_yet(tmp_path: Path):
    (tmp_path / "evolution.yaml").write_text("family: snn-graph\n", encoding="utf-8")
    assert "not finished" in refused(tmp_path, "report", tmp_path)


def test_a_folder_of_another_configuration_is_refused(run: Path):
    line = refused(run, "search", run.parent / "quick.yaml", "--run", run, "--set", "seed=5")
    assert lacking(line, [run, "seed is 0 there, 5 now", "--run"]) == []


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert "is not a run folder of snn-graph" in refused(
        tmp_path, "search", written_beside(tmp_path), "--run", tmp_path
    )


def written_beside(folder: Path) -> Path:
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(QUICK), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("family=snn", ["family", "unknown family", "cells, snn-graph", "'snn'"]),
        ("task=chess", ["task", "choose from iris", "'chess'"]),
        ("faults=[weights.melted:1]", ["faults", "weights.melted", "weights.gaussian"]),
        ("measurement.faults=[weights.gaussian]", ["measurement.faults", "no strength"]),
        ("processor.delay_max=0", ["processor.delay_max", "0"]),
        ("evolution.elite=12", ["evolution", "elite", "at most population - 1 (11)", "12"]),
        ("fitness={accuracy: 0, resilience: 0}", ["fitness", "above 0"]),
        ("trials=3", ["trials", "unknown key", "evolution"]),
        ("name=a/b", ["name"]),
    ],
)
def test_a_mistake_in_the_configuration_is_told_in_one_line(change: str, words: list[str], tmp_path: Path):
    line = refused(tmp_path, "search", written(tmp_path), "--run", tmp_path / "run", "--set", change)
    assert lacking(line, words) == []


def test_a_directory_of_data_would_change_nothing(tmp_path: Path):
    assert "--data-dir" in refused(
        tmp_path, "search", written(tmp_path), "--run", tmp_path / "r", "--data-dir", tmp_path
    )


def test_the_verb_takes_the_same_keys(run: Path):
    found = api.search(QUICK, run)
    assert isinstance(found, SearchFinding) and found.folder == run
    assert {"cells", "snn-graph"} <= set(FAMILIES)


def test_the_configuration_survives_yaml():
    path = ROOT / "experiments" / "snn_wine.yaml"
    config = graph_config(yaml.safe_load(path.read_text(encoding="utf-8")), path)
    assert GraphSearchConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
    assert config.name == path.stem


def test_a_net_from_a_run_is_measured_as_there_and_written(run: Path, tmp_path: Path):
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    net = next(net for net in results["nets"] if net["key"] == results["winner"])
    arguments = ("--faults", "weights.gaussian:0.2", "--chips", 4, "--sample", 3, "--out", tmp_path / "dist", "--json")
    result = ftnas("spikes", run / "winner" / "network.json", *arguments)
    found = json.loads(result.stdout)
    assert (found["accuracy"], found["faults"][0]["mean"]) == (net["test"], net["faults"][0]["mean"])
    names = {"network.json", "network.h", "neurons.csv", "synapses.csv", "network.svg", "network.png", "raster.svg"}
    assert {file.name for file in (tmp_path / "dist").iterdir()} == names | {"raster.png"}
    assert (tmp_path / "dist" / "network.json").read_bytes() == (run / "winner" / "network.json").read_bytes()
    assert "weights.gaussian:0.2" in ftnas("spikes", run / "winner" / "network.json", *arguments[:4]).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--task", "wine"), ["inputs", "wine needs 26", "8"]),
        (("--task", "chess"), ["'chess'", "iris"]),
        (("--faults", "weights.melted:1"), ["weights.melted"]),
        (("--sample", 3), ["--sample", "--out"]),
        (("--chips", 3), ["--chips", "--faults"]),
        (("--sample", 99, "--out", "dist"), ["sample 99", "0 to 44"]),
    ],
)
def test_what_does_not_fit_a_net_is_refused(arguments: tuple[Any, ...], words: list[str], run: Path):
    assert lacking(refused(run, "spikes", run / "winner" / "network.json", *arguments), words) == []
    assert not Path("dist", "network.json").exists()


EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "base": {key: value for key, value in QUICK.items() if key != "name"},
    "axes": {
        "fitness": {
            "accuracy": {"fitness": {"accuracy": 1, "resilience": 0, "synapse": 0, "neuron": 0}},
            "front": {"evolution": {"method": "nsga2", "generations": 3}},
        }
    },
    "against": "accuracy",
    "seeds": [0, 1],
}


def test_an_experiment_is_one_table_and_one_figure_and_goes_on(tmp_path: Path):
    path = written(tmp_path, EXPERIMENT)
    result = ftnas("experiment", path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    before = contents(tmp_path / "out")
    assert ftnas("experiment", path, "--out", tmp_path / "out").stdout == result.stdout
    assert contents(tmp_path / "out") == before
    results = json.loads(before["results.json"])
    assert [row["options"]["fitness"] for row in results["rows"]] == ["accuracy", "front"]
    row, other = results["rows"]
    assert row["synapses"] == sum(row["synapses_of_seeds"]) / 2
    gain = next(one for one in results["differences"] if one["rate"] == 0.2)
    assert gain["mean"] == pytest.approx(other["faults"][0]["mean"] - row["faults"][0]["mean"])
    assert {"figure.svg", "figure.png", "results.csv", "results.md", "experiment.yaml"} <= set(before)
    assert len(before["results.csv"].splitlines()) == 1 + 2 * 2


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"against": "nothing"}, (), ["against", "accuracy, front", "'nothing'"]),
        ({"seeds": [0, 0]}, (), ["seeds", "each once"]),
        ({"axes": {"task": {"chess": {"task": "chess"}}}, "against": None}, (), ["small: chess", "task"]),
        ({}, ("--workers", 2), ["--workers", "change nothing"]),
    ],
)
def test_a_mistake_in_an_experiment_is_told_in_one_line(changes: Any, arguments: Any, words: list[str], tmp_path: Path):
    path = written(tmp_path, EXPERIMENT | changes)
    assert lacking(refused(tmp_path, "experiment", path, "--out", tmp_path / "out", *arguments), words) == []
