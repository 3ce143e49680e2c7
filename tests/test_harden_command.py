"""``ftnas harden``: what it prints and writes, that its folder is a net, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import contents, ftnas, refused
from exported_nets import baseline, training_folder

import ftnas as package
from ftnas import api
from ftnas.files import read_json, write_json
from ftnas.networks.hardened import hardened_layers
from ftnas.pipeline.hardening import RECORD, WEIGHTS
from ftnas.pipeline.nets import load_net

FLIPS = ("--faults", "features.bitflip:0.01,0.03", "--chips", "3", "--images", "40")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_folder(tmp_path_factory.mktemp("nets"), baseline())


@pytest.fixture(scope="module")
def hardened(net: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a hardened net, and what was printed."""
    out = tmp_path_factory.mktemp("hardened") / "split"
    result = ftnas("harden", net, "--budget", 0.5, "--select", "random", *FLIPS, "--out", out)
    assert result.exit_code == 0, (result.output, result.exception)
    return out, result.stdout


def test_costs_and_accuracies_are_printed_and_written(hardened: tuple[Path, str]) -> None:
    out, printed = hardened
    for words in ("MACs", "bytes of activations", "without faults", "features.bit_flip:0.03", "95 % interval"):
        assert words in printed
    record = read_json(out / RECORD)
    assert [len(one["faults"]) for one in record["accuracies"]] == [0, 1, 1]
    assert all(one["low"] <= one["gain"] <= one["high"] for one in record["accuracies"])
    assert 0 < record["overhead"]["shares"]["work"] <= 0.5


def test_the_folder_is_a_net_for_every_other_command(hardened: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = hardened
    assert hardened_layers(load_net(str(out)).model) and hardened_layers(package.load(out))
    assert "copies.0.output" in ftnas("sites", out).stdout
    assert ftnas("show", out).exit_code == 0
    campaign = ftnas("campaign", out, *FLIPS[:2], "--chips", 2, "--images", 20, "--out", tmp_path / "c")
    assert campaign.exit_code == 0, campaign.output
    exported = ftnas("export", out, "--format", "safetensors", "--images", 20, "--out", tmp_path / "e")
    assert exported.exit_code == 0, exported.output
    assert torch.equal(
        *(net(load_net(str(out)).data.test_images[:8]) for net in map(package.load, (out, tmp_path / "e")))
    )


def test_the_same_command_goes_on_where_it_was_cut_off(net: Path, hardened: tuple[Path, str], tmp_path: Path) -> None:
    out, printed = hardened
    again = tmp_path / "again"
    shutil.copytree(out, again)
    records = next((again / "campaigns" / "after").glob("*.jsonl"))
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    records.write_text("".join(lines[:-1]), encoding="utf-8")
    record = json.loads((again / RECORD).read_text(encoding="utf-8"))
    write_json(again / RECORD, {key: record[key] for key in record if key != "accuracies"})
    result = ftnas("harden", net, "--budget", 0.5, "--select", "random", *FLIPS, "--out", again)
    assert result.stdout.replace(str(again), str(out)) == printed
    assert read_json(again / RECORD) == read_json(out / RECORD)


def test_a_kill_before_the_record_begins_anew(net: Path, hardened: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = hardened
    for name in (WEIGHTS, "net.json"):
        (tmp_path / "cut").mkdir(exist_ok=True)
        shutil.copy(out / name, tmp_path / "cut" / name)
    api.harden(net, {"budget": 0.5, "select": "random"}, tmp_path / "cut")
    assert (tmp_path / "cut" / RECORD).exists()


def test_json_is_the_record(net: Path, tmp_path: Path) -> None:
    result = ftnas("harden", net, "--method", "bound", "--images", 20, "--json", "--out", tmp_path / "bound")
    content = json.loads(result.stdout)
    assert content.pop("folder") == str(tmp_path / "bound")
    assert content == read_json(tmp_path / "bound" / RECORD)
    assert content["overhead"]["shares"]["macs"] == 0


def test_a_net_of_ones_own_is_hardened_and_loaded_again(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    shutil.copy(Path(__file__).with_name("own_resnet.py"), source)
    net = f"{source}:ResNet"
    first = ftnas("harden", net, "--data", "digits", "--method", "guard", "--images", 20, "--out", tmp_path / "out")
    assert first.exit_code == 0, (first.output, first.exception)
    weights = tmp_path / "out" / WEIGHTS
    listed = ftnas("sites", net, "--data", "digits", "--weights", weights)
    assert listed.exit_code == 0 and ".layer.output" in listed.stdout, listed.output


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--budget", "1e-9"), ("budget", "less than one channel", "allowed is")),
        (("--ratio", "nowhere=1"), ("'nowhere'",)),
        (("--method", "tmr", "--rule", "min"), ("rule", "majority")),
        (("--method", "bound", "--budget", "0.5"), ("bound",)),
        (("--faults", "features.nothing:1"), ("features.nothing",)),
    ],
)
def test_a_mistake_is_one_line(net: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    line = refused(tmp_path, "harden", net, "--select", "random", *arguments, "--out", tmp_path / "out")
    assert all(word in line for word in words), line


def test_a_folder_of_something_else_is_left_alone(net: Path, hardened: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert "holds no hardened net" in refused(tmp_path, "harden", net, "--out", tmp_path)
    out, _ = hardened
    before = contents(out)
    assert "another hardened net" in refused(out, "harden", net, "--method", "tmr", "--out", out)
    assert contents(out) == before


EXPERIMENT = """
name: small
family: hardening
nets:
  digits: {net: resnet20, width: 0.125, data: {name: digits}, kind: plain, faults: [features.bit_flip:1e-3],
           training: {epochs: 1, batch_size: 64}}
ways:
  split: {method: split, select: random, budgets: [0.25]}
  guard: {method: guard}
seeds: [0]
faults: [features.bit_flip:0.01]
chips: 2
test_images: 40
"""


@pytest.mark.slow
def test_an_experiment_measures_every_way_at_every_budget_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    config, out = tmp_path / "small.yaml", tmp_path / "out"
    config.write_text(EXPERIMENT, encoding="utf-8")
    first = ftnas("experiment", config, "--out", out)
    assert first.exit_code == 0, (first.output, first.exception)
    results = read_json(out / "results.json")
    assert [(row["way"], row["budget"]) for row in results["rows"]] == [
        ("none", "none"), ("split", "0.25"), ("split", "all"), ("guard", "all"),
    ]  # fmt: skip
    assert results["rows"][1]["overhead"]["work"] <= 0.25 < results["rows"][2]["overhead"]["work"]
    assert (out / "figure.png").exists() and len((out / "results.csv").read_text(encoding="utf-8").splitlines()) == 5
    next(out.rglob("measured/split-all.json")).unlink()
    assert ftnas("experiment", config, "--out", out).stdout == first.stdout
    assert read_json(out / "results.json") == results


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("method: guard", "method: fence", "ways.guard"),
        ("method: guard", "method: guard, colour: red", "colour"),
        ("chips: 2", "chips: 1", "chips"),
        ("bit_flip:0.01", "nothing:0.01", "features.nothing"),
        ("width: 0.125", "wideness: 1", "nets.digits"),
    ],
)
def test_a_mistake_in_an_experiment_is_one_line(old: str, new: str, words: str, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(EXPERIMENT.replace(old, new), encoding="utf-8")
    result = ftnas("experiment", config, "--out", tmp_path / "out")
    assert result.exit_code == 2 and words in result.stderr and not (tmp_path / "out").exists(), result.output
