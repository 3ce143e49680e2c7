from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftnas import api
from ftnas.campaign.attack import Conduct, Goal
from ftnas.data import Dataset
from ftnas.errors import CampaignError, FaultError, FtnasError
from ftnas.pipeline.campaigns import ChipOptions, Execution, measure_chips
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.spiking.dense.attack import attack_chips, spiking_levels
from ftnas.spiking.dense.fault_map import FaultMap, PartFault, inject_map
from ftnas.spiking.dense.json_file import write_network_json
from ftnas.spiking.dense.measurement import spiking_chip_accuracies
from ftnas.spiking.dense.network import with_spec
from ftnas.spiking.graph.attack import attack_graph
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Processor, Synapse, genome
from ftnas.spiking.graph.network_file import Network, write_network
from ftnas.spiking.graph.perturbation import PERTURBATIONS, parse_perturbation
from ftnas.spiking.graph.scoring import scores_of
from ftnas.spiking.graph.tasks import load_task
from tests.command_line import ftnas
from tests.small_nets import small_net as plain_net
from tests.spiking_nets import CLASSES, images, small_net

FAULTS = ("neurons.dead:0.1,0.3", "features.bit_flip:0.01")
LABELS = torch.arange(9) % CLASSES


def attacked(chips: int = 3, faults: tuple[str, ...] = FAULTS, out: Path | None = None, **keys: Any) -> Any:
    net = keys.pop("net", None) or small_net()
    workers = keys.pop("workers", 1)
    goal, how = Goal(None, chips), Conduct(out, workers=workers)
    return attack_chips(net, (images(), LABELS), faults, goal=goal, how=how, **keys)


def iris() -> Network:
    net = genome(8, 3, {8: 40, 9: 40, 10: 40}, [Synapse(6, 8, 20, 1), Synapse(5, 9, 40, 1), Synapse(7, 10, 40, 1)])
    return Network(net, Processor(), Encoding(), "iris")


def test_a_campaign_finds_on_each_chip_what_a_search_finds() -> None:
    result = attacked()
    for place, rate in enumerate((0.1, 0.3)):
        faults = [f"neurons.dead:{rate}", "features.bit_flip:0.01"]
        expected = spiking_chip_accuracies(
            small_net(), images(), LABELS, faults=faults, chips=range(3), study="campaign"
        )
        found = [unit["rates"][place]["images"]["correct_after"] / len(LABELS) for unit in result.units]
        assert found == pytest.approx(expected)
        assert result.rates[place].rate == rate and result.rates[place].accuracy.units == 3


def test_a_campaign_goes_on_from_its_records_with_any_number_of_threads(tmp_path: Path) -> None:
    attacked(2, out=tmp_path)
    first = (tmp_path / "records.jsonl").read_bytes()
    again = attacked(4, out=tmp_path, workers=2)
    assert (tmp_path / "records.jsonl").read_bytes().startswith(first)
    assert again.units == attacked(4).units


def test_records_of_a_net_with_another_leak_are_refused(tmp_path: Path) -> None:
    attacked(2, out=tmp_path)
    with pytest.raises(CampaignError, match=r"holds another campaign \(net.leak is 0.9 there, 0.5 now\)"):
        attacked(2, out=tmp_path, net=with_spec(small_net(), leak=0.5))


def test_what_a_map_breaks_is_broken_on_every_chip() -> None:
    net = small_net()
    silent = FaultMap(tuple(PartFault(0, "neurons", "dead", element) for element in range(7)))
    with torch.no_grad(), inject_map(net, silent):
        expected = int((net(images()).argmax(1) == LABELS).sum())
    result = attacked(faults=("synapses.dead:0",), given=silent)
    assert [unit["rates"][0]["images"]["correct_after"] for unit in result.units] == [expected] * 3
    assert [unit["rates"][0]["faults"]["applied"] for unit in result.units] == [7] * 3
    assert "7 faults of a map" in result.population


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (("neurons.dead:0.1,0.1",), "allowed is one or more, each once"),
        (("neurons.dead:0.1,0.2", "synapses.dead:0.1,0.2,0.3"), "as many each, or one"),
        (("neurons.dead:0.1,x",), "rate must be a number, got 'x'"),
        (("weights.bit_flip:0.1:colour=1",), "unknown option 'colour=1'"),
    ],
)
def test_impossible_levels_are_refused_in_one_line(faults: tuple[str, ...], words: str) -> None:
    with pytest.raises(FtnasError, match=words) as caught:
        spiking_levels(faults)
    assert "\n" not in str(caught.value)


def test_options_of_a_fault_hold_at_every_rate() -> None:
    levels = spiking_levels(["neurons.threshold:0.1,0.2:low=0.5:high=1.5"])
    assert [str(level.faults[0]) for level in levels] == [
        "neurons.threshold:0.1:low=0.5:high=1.5",
        "neurons.threshold:0.2:low=0.5:high=1.5",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ChipOptions(("neurons.dead:0.1",), chips=2), "neurons.dead: is a fault of spiking hardware, and cnn has no"),
        (ChipOptions(("weights.bit_flip:0.1",), chips=2, map=Path("map.json")), "map: is for layered spiking nets"),
    ],
)
def test_faults_of_spiking_hardware_are_refused_for_other_nets(
    options: ChipOptions, words: str, tmp_path: Path
) -> None:
    data = Dataset("own", images(), LABELS, images(), LABELS, CLASSES)
    with pytest.raises(FtnasError, match=words):
        measure_chips(Checkpoint("cnn", plain_net(), data), options, Execution(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_campaign_on_a_graph_finds_what_its_evolution_finds(tmp_path: Path) -> None:
    task, network = load_task("iris", Encoding()), iris()
    faults = ["weights.gaussian:0.1,0.3"]
    result = attack_graph(network, task, faults, goal=Goal(None, 4), how=Conduct(tmp_path))
    for place, strength in enumerate((0.1, 0.3)):
        [score] = scores_of(
            [network.genome], processor=network.processor, task=task, chips=range(4), study="campaign", split="test",
            faults=[parse_perturbation(f"weights.gaussian:{strength}")],
        )  # fmt: skip
        found = [unit["rates"][place]["images"]["correct_after"] / 45 for unit in result.units]
        assert found == pytest.approx(score.chips) and result.accuracy == pytest.approx(score.clean)
    more = attack_graph(network, task, faults, goal=Goal(None, 6), how=Conduct(tmp_path))
    assert more.units[:4] == result.units


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_at_strength_0_a_chip_is_sound(name: str) -> None:
    result = attack_graph(iris(), load_task("iris", Encoding()), [f"{name}:0"], goal=Goal(None, 2), how=Conduct())
    for unit in result.units:
        assert unit["rates"][0]["images"]["masked"] == 45 and unit["rates"][0]["faults"] == {"effective": 0}


def test_a_task_without_samples_has_a_score_only(tmp_path: Path) -> None:
    net = genome(8, 2, {8: 40, 9: 40}, [Synapse(4, 8, 60, 1), Synapse(5, 9, 60, 1)])
    write_network(tmp_path / "pole.json", Network(net, Processor(), Encoding(), "pole_balancing"))
    words = [
        "campaign",
        tmp_path / "pole.json",
        "--faults",
        "neurons.dead:0.2",
        "--chips",
        3,
        "--out",
        tmp_path / "out",
    ]
    printed = ftnas(*words)
    assert printed.exit_code == 0, printed.output
    assert "changed numbers a chip" in printed.output and "no answer" not in printed.output
    plain = json.loads(ftnas(*words, "--json").stdout)
    [row] = plain["rows"]
    assert 0 < row["accuracy"] <= 1 and row["chips"] == 3 and "changed" not in row


def test_a_net_without_a_site_for_a_fault_is_refused_in_one_line() -> None:
    network = replace(iris(), genome=genome(8, 3, {8: 40, 9: 40, 10: 40}, []))
    with pytest.raises(FaultError, match=r"synapses.dead: the net has no synapses that it can hit"):
        attack_graph(network, load_task("iris", Encoding()), ["synapses.dead:0.1"], goal=Goal(None, 2), how=Conduct())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--faults", "features.bit_flip:0.1"], "unknown fault 'features.bit_flip' of spiking graphs; choose from"),
        (["--faults", "neurons.dead:0.1", "--images", "10"], "--images: "),
        (["--faults", "neurons.dead:0.1", "--batch-size", "10"], "--batch-size: "),
        (["--faults", "neurons.dead:0.1", "--map", "map.json"], "--map: "),
        (["--faults", "neurons.dead:0.1", "--data", "wine"], "inputs: the task wine needs 26, got 8"),
    ],
)
def test_what_a_graph_does_not_take_is_refused_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    write_network(tmp_path / "net.json", iris())
    printed = ftnas("campaign", tmp_path / "net.json", *words, "--chips", 2, "--out", tmp_path / "out")
    assert printed.exit_code == 2 and message in printed.stderr and len(printed.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_both_families_are_attacked_through_the_api(tmp_path: Path) -> None:
    write_network(tmp_path / "graph.json", iris())
    options = {"faults": ["neurons.stuck:0.1,0.2"], "chips": 3}
    graph = api.campaign(tmp_path / "graph.json", options, tmp_path / "one")
    net = Checkpoint("layers", small_net(), Dataset("own", images(), LABELS, images(), LABELS, CLASSES))
    layers = api.campaign(net, options, tmp_path / "two")
    assert (graph.chips, layers.chips) == (3, 3)
    for folder in ("one", "two"):
        names = {file.name for file in (tmp_path / folder).iterdir()}
        assert {"records.jsonl", "results.json", "results.csv", "accuracy.svg", "accuracy.png"} <= names


def test_a_chip_is_exported_as_a_map_that_breaks_the_same(tmp_path: Path) -> None:
    net = Checkpoint("layers", small_net(), Dataset("own", images(), LABELS, images(), LABELS, CLASSES))
    faults = ("synapses.flipped:0.2", "features.bit_flip:0.01")
    options = ChipOptions(faults, chips=3, export_chip=2)
    result = measure_chips(net, options, Execution(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "map_of_chip_2_at_0.2.json").read_text())
    plan = (tmp_path / "out" / "plan_of_chip_2_at_0.2.csv").read_text().splitlines()
    applied = result.units[2]["rates"][0]["faults"]["applied"]
    assert len(content["faults"]) > 5 and len(content["faults"]) + len(plan) - 1 == applied


def test_a_layered_net_is_attacked_from_its_file(tmp_path: Path) -> None:
    write_network_json(small_net(), tmp_path / "net.json", facts={"data": "digits"})
    printed = ftnas(
        "campaign", tmp_path / "net.json", "--faults", "neurons.dead:0.1", "--chips", 2, "--out", tmp_path / "c"
    )
    assert printed.exit_code == 2 and "is of a net for other data than digits" in printed.stderr


def test_new_faults_of_graphs_do_what_their_names_say() -> None:
    from ftnas.spiking.graph.batch import batch_of
    from ftnas.spiking.graph.perturbation import on_chips
    from ftnas.spiking.graph.simulator import spike_trains

    clean = batch_of([iris().genome], Processor())
    spikes = load_task("iris", Encoding()).test[0]  # type: ignore[attr-defined]

    def broken(fault: str) -> Any:
        return on_chips(clean, [parse_perturbation(fault)], [0], "study")

    assert spike_trains(broken("neurons.saturated:1"), spikes).all()
    assert np.array_equal(broken("synapses.saturated:1").weights, np.full(3, 127))
    words = broken("synapses.flipped:1").weights.astype(int) ^ clean.weights.astype(int)
    assert all(bin(int(word) & 0xFF).count("1") == 1 for word in words)
    trains = spike_trains(broken("neurons.stuck:1"), spikes)
    assert all(trains[:, row].all() or not trains[:, row].any() for row in range(3))
    thresholds = broken("neurons.threshold:1").thresholds
    assert ((thresholds >= 4) & (thresholds <= 120)).all() and (thresholds == thresholds.round()).all()
    stuck = broken("synapses.stuck:1").weights
    assert ((stuck >= -128) & (stuck <= 127)).all() and not np.array_equal(stuck, clean.weights)
