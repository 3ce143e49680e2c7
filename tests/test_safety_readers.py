"""What the fuzzers found, one by one: each of these was a traceback, a hang or a full memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exported_nets
import pytest
import torch
from command_line import SMOKE, make_run, refused
from fuzz_folders import small_run
from test_spiking_graph_files import NETWORK

from ftnas.configuration import override, read_yaml
from ftnas.errors import (
    ConfigError,
    ExportError,
    FtnasError,
    ModelError,
    RunError,
    SpaceError,
    SpikingError,
    one_line,
)
from ftnas.export.weights import load_weights, save_weights
from ftnas.files import read_json, write_json
from ftnas.networks.bounded import bounded
from ftnas.pipeline.checkpoints import find_training
from ftnas.pipeline.description import describe
from ftnas.pipeline.exports import _earlier, load
from ftnas.pipeline.hardening_experiment import load_hardening_experiment
from ftnas.pipeline.net_comparison import compare_config
from ftnas.pipeline.nets import own_net
from ftnas.pipeline.trained import read_job
from ftnas.search.candidates import read_candidates
from ftnas.space import Genotype, load_space
from ftnas.spiking.graph.evolution import read_generation
from ftnas.spiking.graph.network_file import read_network, write_network

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 2001-99-99", "month must be in 1..12"),
        (f"a: {'9' * 5000}", "Exceeds the limit"),
        (f"a: [{'9' * 400}]", "more than 64 bits"),
        ("a: !!timestamp x", "is not YAML"),
        ("a: !!bool maybe", "is not YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "holds itself"),
        (LAUGHS, "more than 100000 parts"),
        ('a: "x\\0y"', "holds a zero"),
        ('a: "\\ud800"', "half of a character"),
        ("a: " + "x" * 2**18, "more than 262144 bytes"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_yaml_that_is_no_configuration_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        read_yaml(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["2001-99-99", "!!bool maybe", "&a [*a]", "[" * 5000], ids=range(4))
def test_a_value_that_is_no_yaml_is_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match="is not a YAML value"):
        override({}, [f"a={value}"])


def test_of_very_many_mistakes_the_first_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(SMOKE.read_text() + "".join(f"wrong{number}: 1\n" for number in range(50)))
    from ftnas.pipeline.config import load_config

    with pytest.raises(ConfigError, match="30 more mistakes like these") as error:
        load_config(file)
    assert len(str(error.value).splitlines()) == 21


def test_a_message_is_cut_where_it_is_longer_than_a_screen() -> None:
    assert len(one_line("x" * 10_000)) == 1499
    assert str(RunError("a\r\nb\x1b[2J\ud800")) == "a  b?[2J?"


@pytest.mark.parametrize("text", ["a/" * 3000 + "b.py:Net", "x" * 300 + ".onnx", "a\0.py:Net"], ids=range(3))
def test_a_net_of_an_impossible_name_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="is no path"):
        own_net(text)
    with pytest.raises(ConfigError, match="is no path"):
        compare_config({"nets": [text]}, source="a")


def test_a_family_or_a_task_that_is_a_list_is_one_line(tmp_path: Path) -> None:
    assert "unknown family" in refused(tmp_path, "search", SMOKE, "--set", "family=[cells]")
    layered = SMOKE.parent / "snn_digits.yaml"
    assert "start: choose from" in refused(tmp_path, "search", layered, "--set", "space.start=[[scratch]]")
    write_network(tmp_path / "net.json", NETWORK)
    write_json(tmp_path / "net.json", {**read_json(tmp_path / "net.json"), "task": []})
    with pytest.raises(SpikingError, match=r"task \[\] is unknown"):
        read_network(tmp_path / "net.json")


@pytest.mark.parametrize("way", [{"budgets": None}, {"budgets": ["x"]}, {"method": 7}, {"budgets": [10**400]}])
def test_a_way_of_hardening_of_wrong_types_is_one_line(way: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    nets = {"n": {"net": "resnet20"}, "m": 7}
    write_json(
        file, {"name": "a", "family": "hardening", "nets": nets, "ways": {"w": way}, "faults": ["weights.bit_flip:0.1"]}
    )
    with pytest.raises(ConfigError, match=r"a\.yaml: "):
        load_hardening_experiment(file, data_directory=tmp_path)


def genotype(**changes: Any) -> dict[str, Any]:
    content = load_space("tiny").sample(torch.Generator().manual_seed(0)).to_dict()
    content["normal"][0][0]["quantization"] |= changes
    return content


def test_numbers_of_a_genotype_that_are_none_are_one_line() -> None:
    wrongs: list[tuple[str, Any]] = [("weight_bits", float("inf")), ("weight_bits", None), ("feature_range", 7)]
    for key, wrong in [*wrongs, ("weight_range", "fixed(1e999)")]:
        with pytest.raises(SpaceError, match="genotype: "):
            Genotype.from_dict(genotype(**{key: wrong}))


def test_a_cell_of_many_nodes_is_refused_before_all_their_orders_are_compared() -> None:
    content = genotype()
    content["normal"] *= 8
    with pytest.raises(SpaceError, match="up to 6 nodes, got 16"):
        Genotype.from_dict(content)


@pytest.mark.parametrize(
    "changes",
    [{"classes": 10**9}, {"width": 1e6}, {"width": 1e308}, {"image_shape": [1, 2**62, 8]}, {"classes": 1e400}],
)
def test_a_net_larger_than_its_weights_is_refused_without_memory_for_it(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    net = exported_nets.baseline()
    save_weights(tmp_path / "a.safetensors", net.model, net.spec)
    content = read_json(tmp_path / "a.json")
    write_json(tmp_path / "a.json", {**content, "net": {**content["net"], **changes}})
    if changes.get("image_shape"):
        load_weights(tmp_path / "a.safetensors")  # a net of convolutions takes images of any size
        return
    with pytest.raises(ModelError, match=r"a\.json: net"):
        load_weights(tmp_path / "a.safetensors")


def test_a_net_is_counted_before_it_is_built() -> None:
    with pytest.raises(ModelError, match="1000000001000000 numbers"):
        bounded(lambda: torch.nn.Linear(10**9, 10**6))


@pytest.mark.parametrize(
    ("key", "value"), [("model", None), ("model", {"baseline": []}), ("seed", None), ("name", None), ("seed", True)]
)
def test_a_description_of_a_training_of_wrong_types_is_one_line(key: str, value: Any, tmp_path: Path) -> None:
    home = exported_nets.training_folder(tmp_path, exported_nets.baseline())
    write_json(home / "model.json", {**read_json(home / "model.json"), key: value})
    if (key, value) == ("seed", True):  # a whole number to Python
        assert read_job(home)["seed"] is True
        return
    with pytest.raises(FtnasError, match=r"model\.json: "):
        load(home)


def test_a_winner_that_is_no_object_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_json(run / "winner" / "result.json", [])
    with pytest.raises(RunError, match=r"result\.json: 'None' is no name"):
        find_training(run)


def test_proofs_of_wrong_types_are_one_line(tmp_path: Path) -> None:
    identity = {"schema": 1, "net": "net", "hash": "0", "facts": {"chip": "0"}}
    proof = {"format": "c", "runtime": "r", "images": 1, "same": 1, "largest": 0.0, "beyond": 0, "remarks": []}
    for files in (None, [7], ["../../x"]):
        write_json(tmp_path / "export.json", {**identity, "proofs": [{**proof, "files": files}]})
        from ftnas.export.exporting import PROOF

        (tmp_path / "export.json").rename(tmp_path / PROOF)
        with pytest.raises((ExportError, RunError), match=PROOF):
            _earlier(tmp_path, identity, ["onnx"])


def test_a_run_that_does_not_say_its_data_is_described(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    (run / "config.yaml").write_text("name: x\ndata: 7\n")
    assert "digits" in describe(str(run)).image


def test_candidates_of_wrong_types_are_one_line(tmp_path: Path) -> None:
    for content in (7, [7], [None], [{"macs": 1e999, "parameters": 1}]):
        write_json(tmp_path / "a.json", content)
        with pytest.raises(RunError, match=r"a\.json|candidate"):
            read_candidates(tmp_path / "a.json")


def test_a_generation_without_nets_is_one_line(tmp_path: Path) -> None:
    for content in ([], {"number": 1, "population": [], "archive": [], "history": []}, {"number": None}):
        write_json(tmp_path / "a.json", content)
        with pytest.raises(RunError, match=r"a\.json: is damaged"):
            read_generation(tmp_path / "a.json", NETWORK.processor)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_json_that_is_nested_too_deeply_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RunError, match="is not whole JSON"):
        read_json(tmp_path / "a.json")
