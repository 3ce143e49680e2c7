from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ftnas import api
from ftnas.errors import FtnasError
from ftnas.pipeline import layered_training
from ftnas.spiking.dense.json_file import read_network_json
from tests.command_line import ftnas

SPEC = {"family": "snn-dense", "widths": [12], "steps": 2, "threshold": 0.5}
KEYS: dict[str, Any] = {
    "data": {"name": "digits", "train_images": 600, "test_images": 150},
    "training": {"epochs": 5, "batch_size": 32},
    "faults": ["neurons.dead:0.1,0.3", "weights.bit_flip:0.001"],
    "campaign": {"chips": 3},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained net ``t1`` and a map ``chip.csv`` of a chip that spoils it."""
    folder = tmp_path_factory.mktemp("layered")
    (folder / "lif.yaml").write_text(yaml.safe_dump(SPEC))
    api.train({**KEYS, "net": str(folder / "lif.yaml")}, folder / "t1")
    words = ["--faults", "synapses.stuck:0.5", "--out", folder / "chip.csv"]
    assert ftnas("faultmap", folder / "t1", *words).exit_code == 0
    return folder


def result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def retrain(home: Path, out: Path, **keys: Any) -> dict[str, Any]:
    common = {"data": KEYS["data"], "net": str(home / "t1"), "map": str(home / "chip.csv"), "training": {"epochs": 3}}
    return api.train({**common, **keys}, out)


def test_a_net_is_trained_from_a_file_of_its_keys(home: Path) -> None:
    found = result(home / "t1")
    assert found["clean"] > 0.4 and [rate["rate"] for rate in found["rates"]] == [0.1, 0.3]
    assert found["rates"][0]["mean"] >= found["rates"][1]["mean"] - 0.05 and len(found["rates"][0]["chips"]) == 3
    assert read_network_json(home / "t1" / "net.json").spec.widths == (12,)
    assert not list((home / "t1").glob("checkpoint*"))
    campaign = ["campaign", home / "t1", "--faults", "neurons.dead:0.1", "--chips", 2, "--images", 50]
    assert ftnas(*campaign, "--out", home / "c1").exit_code == 0


def test_a_training_that_was_killed_ends_in_the_same_bits(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    original, seen = layered_training.train, []

    def dying(*args: Any, on_epoch: Any, **keys: Any) -> Any:
        def after(record: Any) -> None:
            on_epoch(record)
            seen.append(record)
            if len(seen) == 2:
                raise Killed

        return original(*args, on_epoch=after, **keys)

    monkeypatch.setattr(layered_training, "train", dying)
    keys = {**KEYS, "net": str(home / "lif.yaml")}
    with pytest.raises(Killed):
        api.train(keys, tmp_path / "t1")
    api.train(keys, tmp_path / "t1")
    assert len(seen) == 6  # of five epochs the one that was cut off before it was kept is done twice
    assert (tmp_path / "t1" / "net.json").read_bytes() == (home / "t1" / "net.json").read_bytes()
    assert result(tmp_path / "t1") == result(home / "t1")


def test_a_finished_training_is_read_and_not_repeated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layered_training, "train", None)
    assert api.train({**KEYS, "net": str(home / "lif.yaml")}, home / "t1") == result(home / "t1")


def test_retraining_on_a_map_repairs_the_chip_with_and_without_thresholds(home: Path, tmp_path: Path) -> None:
    learned = retrain(home, tmp_path / "learned")
    fixed = retrain(home, tmp_path / "fixed", learn_threshold=False)
    for found in (learned, fixed):
        chip = found["chip"]
        assert chip["trained"] > max(chip["on_chip"], chip["bypassed"])
    before = result(home / "t1")["thresholds"]
    assert fixed["thresholds"] == before and learned["thresholds"] != before
    assert (tmp_path / "fixed" / "map.json").exists()


def test_without_a_bypass_broken_synapses_keep_what_they_hold(home: Path, tmp_path: Path) -> None:
    chip = retrain(home, tmp_path / "held", bypass=False)["chip"]
    assert "bypassed" not in chip and chip["trained"] > chip["on_chip"]


def test_what_is_measured_on_a_chip_meets_its_map_too(home: Path, tmp_path: Path) -> None:
    found = retrain(home, tmp_path / "more", faults=["synapses.dead:0"], campaign={"chips": 2})
    assert found["rates"][0]["chips"] == [found["chip"]["trained"]] * 2


def test_a_converted_net_is_trained_from_the_same_file(home: Path, tmp_path: Path) -> None:
    found = api.train(
        {"net": str(home / "lif.yaml"), "data": KEYS["data"], "start": "converted", "training": {"epochs": 2}},
        tmp_path / "converted",
    )
    assert found["specification"]["leak"] == 1 and found["specification"]["initial"] == 0.5


def test_a_training_goes_on_from_a_nets_weights_or_begins_anew(home: Path, tmp_path: Path) -> None:
    keys = {**KEYS, "net": str(home / "t1"), "training": {"epochs": 1, "learning_rate": 1e-9}}
    api.train(keys, tmp_path / "on")
    api.train({**keys, "start": "scratch"}, tmp_path / "anew")
    old, on, anew = (read_network_json(f / "net.json") for f in (home / "t1", tmp_path / "on", tmp_path / "anew"))
    weights = [net.stages[0].synapses.weight for net in (old, on, anew)]
    assert torch.allclose(weights[0], weights[1], atol=1e-2) and not torch.allclose(weights[0], weights[2], atol=1e-1)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"colour": 1}, "colour: unknown key"),
        ({"faults": ["neurons.tired:0.1"]}, "unknown fault 'neurons.tired'"),
        ({"start": "weights"}, "start: .*lif.yaml holds the keys of a net and no weights"),
        ({"start": "converted", "map": "map.csv"}, "a net that is converted knows no map"),
        ({"bypass": False}, "bypass: would change nothing without a map"),
        ({"map": "none.csv"}, "none.csv: cannot be read"),
        ({"data": {"name": "npz"}}, "data.directory"),
    ],
)
def test_a_wrong_training_is_refused_in_one_line(home: Path, tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(FtnasError, match=words) as caught:
        api.train({"net": str(home / "lif.yaml"), "training": {"epochs": 1}, **keys}, tmp_path / "t")
    assert "\n" not in str(caught.value) and not (tmp_path / "t").exists()


def test_another_training_does_not_go_on_in_the_folder(home: Path) -> None:
    with pytest.raises(FtnasError, match=r"was made by another configuration \(seed is 0 there, 1 now\)"):
        api.train({**KEYS, "net": str(home / "lif.yaml"), "seed": 1}, home / "t1")


def test_the_command_trains_and_prints(home: Path, tmp_path: Path) -> None:
    words = ["train", home / "t1", "--map", home / "chip.csv", "--epochs", 1, "--out", tmp_path / "t"]
    sizes = ["--set", "data.train_images=300", "--set", "data.test_images=150", "--set", "learn_threshold=false"]
    printed = ftnas(*words, *sizes)
    assert printed.exit_code == 0 and "chip, trained" in printed.stdout and "spikes" in printed.stdout, printed.output
    plain = json.loads(ftnas(*words, *sizes, "--json").stdout)
    assert plain["folder"] == str(tmp_path / "t") and plain["chip"]["faults"] > 100
