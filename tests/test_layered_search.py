from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from ftnas import api
from ftnas.errors import ConfigError, FtnasError, ModelError, RunError
from ftnas.holding import OWN_FILES
from ftnas.pipeline import layered_search
from ftnas.pipeline.layered_config import LayeredSearchConfig, layered_config
from ftnas.pipeline.layered_search import search_layers
from ftnas.pipeline.nets import load_net
from ftnas.space import Decision
from tests.command_line import ftnas

KEYS: dict[str, Any] = {
    "family": "snn-dense",
    "name": "tiny",
    "data": {"name": "digits", "train_images": 200, "test_images": 100},
    "faults": ["weights.bit_flip:0.01", "neurons.dead:0.1"],
    "base": {"steps": 2},
    "space": {"widths": [[8], [16]], "leak": [0.5, 1.0], "start": ["scratch", "converted"]},
    "search": {"trials": 4, "population": 3},
    "scoring": {"epochs": 1, "chips": 2},
    "training": {"epochs": 2, "learning_rate": 0.02, "objective": "qat"},
    "finalists": {"top": 2, "chips": 3},
}


def config(**keys: Any) -> LayeredSearchConfig:
    return layered_config({**KEYS, **keys}, Path("snn.yaml"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layered") / "run"
    search_layers(config(), folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Return what must not depend on when and how often a search was started."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in {"environment.json", "journal.log", *OWN_FILES}
    }


def test_a_search_leaves_candidates_a_front_and_trained_nets(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    rows = json.loads((run / "study" / "candidates.json").read_text())
    assert len(rows) == results["candidates"] == 4
    on_front = [row for row in rows if row["name"] in results["front"]]
    for row in rows:
        beaten = [
            other for other in on_front
            if other["faulty"] >= row["faulty"] and other["synapses"] <= row["synapses"]
            and other["spikes"] <= row["spikes"] and other is not row
        ]  # fmt: skip
        assert bool(beaten) != (row["name"] in results["front"])
    best = results["nets"][0]
    assert (
        best["faulty"]["low"] <= best["faulty"]["mean"] <= best["faulty"]["high"] and len(best["faulty"]["chips"]) == 3
    )
    names = set(files(run))
    assert {
        "report.html",
        "front.svg",
        "front.png",
        "raster.svg",
        "raster.png",
        "spiking.yaml",
        f"nets/{best['name']}.json",
    } <= names
    assert all(name in (run / "report.html").read_text() for name in [best["name"], "neurons.dead"])


def test_a_search_that_was_killed_ends_in_the_same_bits(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    left = {"trained": 2}

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def trained(*args: Any, **keys: Any) -> Any:
            left["trained"] -= 1
            if not left["trained"]:
                raise Killed
            return function(*args, **keys)

        return trained

    original = layered_search.trained
    for after in (2, 3, 2, 99):
        left["trained"] = after
        monkeypatch.setattr(layered_search, "trained", dying(original))
        try:
            search_layers(config(), tmp_path / "run")
        except Killed:
            continue
    assert files(tmp_path / "run") == files(run)


def test_a_finished_search_is_read_not_repeated(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layered_search, "trained", None)
    assert search_layers(config(), run) == json.loads((run / "results.json").read_text())


def test_a_folder_of_another_search_is_refused(run: Path) -> None:
    with pytest.raises(RunError, match=r"another configuration \(seed is 0 there, 1 now\)"):
        search_layers(config(seed=1), run)


def test_a_run_is_a_net_for_other_commands(run: Path) -> None:
    best = json.loads((run / "results.json").read_text())["nets"][0]
    net = load_net(str(run))
    assert net.name == best["name"] and net.data.name == "digits"
    assert load_net(str(run / "nets" / f"{best['name']}.json"), images=50).data.test_images.shape[0] == 50
    found = api.campaign(str(run), {"faults": ["features.bit_flip:0.01"], "chips": 2}, run.parent / "campaign")
    assert found.chips == 2


def test_a_nir_file_is_a_net_where_the_data_are_named(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    from ftnas.spiking.dense.nir_file import write_nir

    net = load_net(str(run))
    write_nir(net.model, tmp_path / "net.nir")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"--data: .*net\.nir does not say"):
        load_net(str(tmp_path / "net.nir"))
    again = load_net(str(tmp_path / "net.nir"), data="digits", images=20)
    assert torch.equal(again.model(again.data.test_images), net.model(again.data.test_images))


def test_a_net_for_a_data_set_that_is_unknown_is_refused(run: Path, tmp_path: Path) -> None:
    best = json.loads((run / "results.json").read_text())["nets"][0]["name"]
    content = json.loads((run / "nets" / f"{best}.json").read_text())
    (tmp_path / "net.json").write_text(json.dumps({**content, "facts": {"data": "letters"}}))
    with pytest.raises(FtnasError, match="unknown data set 'letters'"):
        load_net(str(tmp_path / "net.json"))


def test_the_command_searches_and_prints(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "snn.yaml").write_text(yaml.safe_dump(KEYS))
    words = ["search", str(tmp_path / "snn.yaml"), "--run", str(tmp_path / "run")]
    printed = ftnas(*words)
    assert printed.exit_code == 0 and "spikes an image" in printed.output and "on the front" in printed.output
    plain = json.loads(ftnas(*words, "--json").output)
    assert plain["nets"][0]["faulty"]["mean"] > 0.05


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"space": {"width": [1]}}, "space: width: unknown key; choose from channels, widths"),
        ({"space": {"leak": []}}, "space: leak: one or more different options"),
        ({"space": {"leak": [0.5, 0.5]}}, "different options"),
        ({"space": {"leak": [0.5, 2]}}, "space.leak: Input should be less than or equal to 1, got 2"),
        ({"space": {"threshold": [1.0, 5.0]}}, "membrane_limit: more than the threshold"),
        ({"space": {"start": ["thin air"]}}, "start: choose from scratch, converted"),
        ({"base": {"leak": 0.5}}, "base.leak: is among the choices"),
        ({"base": {"colour": 1}}, "colour"),
        ({"faults": ["neurons.tired:0.1"]}, "unknown fault 'neurons.tired'"),
        ({"faults": []}, "faults: at least 1 needed"),
        ({"data": {"name": "npz"}}, "data.directory"),
        ({"colour": 1}, "colour: unknown key"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_line(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config(**keys)
    assert str(caught.value).startswith("snn.yaml: ") and "\n" not in str(caught.value)


def test_a_threshold_may_be_beyond_the_usual_limit_where_the_limit_is_chosen_too() -> None:
    config(space={"threshold": [5.0], "membrane_limit": [8.0, 16.0]})


@given(st.lists(st.integers(0, 1), min_size=3, max_size=3))
@budget(max_examples=8, deadline=None)
def test_what_does_not_count_for_a_converted_net_makes_no_two_of_them(choices: list[int]) -> None:
    spec, start = config().net(dict(zip(KEYS["space"], choices, strict=True)))
    other, _ = config().net({"widths": choices[0], "leak": 1 - choices[1], "start": choices[2]})
    assert (spec == other) == (start == "converted")


def test_the_bundled_experiment_is_a_configuration() -> None:
    file = Path(__file__).parents[1] / "experiments" / "snn_digits.yaml"
    found = layered_config(yaml.safe_load(file.read_text()), file)
    assert Decision("steps", 3) in found.decisions


def test_a_net_of_a_search_is_exported_with_proof(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    printed = ftnas("export", run, "--format", "json", "nir", "--out", tmp_path / "dist", "--json")
    assert printed.exit_code == 0, printed.output
    proofs = json.loads(printed.output)["proofs"]
    assert [(proof["format"], proof["same"], proof["largest"]) for proof in proofs] == [
        ("json", 597, 0.0),
        ("nir", 597, 0.0),
    ]
    assert load_net(str(tmp_path / "dist" / "net.json")).data.name == "digits"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onnx"], "unknown format 'onnx'; choose from json, nir"),
        (["--format", "json", "--faults", "weights.bit_flip:0.1"], "--faults: a spiking net is written without any"),
        (["--format", "tflite"], "unknown format 'tflite'; choose from onnx"),
    ],
)
def test_an_impossible_export_is_refused_in_one_line(run: Path, tmp_path: Path, words: list[str], message: str) -> None:
    printed = ftnas("export", run, "--out", tmp_path / "dist", *words)
    assert printed.exit_code == 2 and message in printed.stderr and len(printed.stderr.splitlines()) == 1
    assert not (tmp_path / "dist").exists()


def test_a_cell_net_is_not_exported_as_a_spiking_one() -> None:
    from ftnas.export.exporting import chosen_formats

    with pytest.raises(FtnasError, match="unknown format 'nir'"):
        chosen_formats(["nir"])
