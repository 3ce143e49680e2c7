from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from ftnas.errors import ModelError
from ftnas.files import write_text
from ftnas.pipeline.layered_pictures import layered_drawing, layered_raster
from ftnas.spiking.dense.json_file import write_network_json
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.stored import stored_layers
from ftnas.spiking.dense.tables import c_tables, neuron_table, read_tables, synapse_table
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Processor, Synapse, genome
from ftnas.spiking.graph.network_file import Network, read_network, write_network
from tests.command_line import ftnas
from tests.spiking_nets import CLASSES, SHAPE, images, small_net

NETS: list[dict[str, Any]] = [
    {},
    {"weight_range": "max_per_channel", "weight_bits": 4, "leak": 1.0},
    {"channels": (3, 2), "widths": (5,), "weight_bits": 12},
]


def written(net: SpikingNet, folder: Path) -> tuple[Path, Path]:
    write_text(folder / "neurons.csv", neuron_table(net))
    write_text(folder / "synapses.csv", synapse_table(net))
    return folder / "neurons.csv", folder / "synapses.csv"


@pytest.mark.parametrize("keys", NETS)
def test_tables_read_back_to_a_net_with_equal_outputs(keys: dict[str, Any], tmp_path: Path) -> None:
    net = small_net(**keys)
    again = read_tables(*written(net, tmp_path), spec=net.spec, image_shape=SHAPE, classes=CLASSES)
    assert torch.equal(again(images()), net(images()))


def test_tables_of_another_net_are_refused_in_one_line(tmp_path: Path) -> None:
    neurons, synapses = written(small_net(), tmp_path)
    spec = small_net(widths=(8,)).spec
    with pytest.raises(ModelError, match="are no tables of such a net") as caught:
        read_tables(neurons, synapses, spec=spec, image_shape=SHAPE, classes=CLASSES)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="needs the columns layer, neuron"):
        read_tables(synapses, neurons, spec=small_net().spec, image_shape=SHAPE, classes=CLASSES)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("keys", NETS)
def test_c_tables_compile_and_hold_the_codes(keys: dict[str, Any], tmp_path: Path) -> None:
    net = small_net(**keys)
    (tmp_path / "net.h").write_text(c_tables(net, "net"))
    sums = [int(layer.codes.sum()) for layer in stored_layers(net)]
    counts = "\n".join(
        f"s = 0; for (unsigned i = 0; i < sizeof net_weight_{i} / sizeof *net_weight_{i}; i++) s += net_weight_{i}[i];"
        f'printf("%ld %d\\n", s, NET_THRESHOLD_{i});'
        for i in range(len(sums))
    )
    (tmp_path / "main.c").write_text(f'#include <stdio.h>\n#include "net.h"\nint main(void) {{ long s;\n{counts}\n}}\n')
    subprocess.run(["cc", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    printed = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout.split()
    expected = [
        number for total, layer in zip(sums, stored_layers(net), strict=True) for number in (total, layer.threshold)
    ]
    assert [int(number) for number in printed] == expected


@pytest.mark.parametrize("keys", NETS)
def test_a_drawing_shows_every_layer(keys: dict[str, Any]) -> None:
    net = small_net(**keys)
    drawing = layered_drawing(net, "my net")
    assert drawing.count("<circle") == sum(
        [net.stages[0].synapses.weight.shape[1], *(len(stage.synapses.weight) for stage in net.stages)]
    )
    for stage in net.stages:
        assert f"{stage.synapses.weight.numel():,} weights" in drawing
    assert "my net" in drawing and "output" in drawing


def test_a_raster_has_a_mark_for_every_spike() -> None:
    net, image = small_net(), images(1)
    fired = sum(int(layer.sum()) for layer in net.run(image).spikes)
    frame = 2 * len(net.stages)  # a line above each layer and one below
    assert layered_raster(net, image, "title").count("<line") == fired + frame > frame


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    net = SpikingNet(SpikingSpec(widths=(9,), steps=3, threshold=0.5), (1, 8, 8), 10).eval()
    write_network_json(net, tmp_path / "lif.json", facts={"data": "digits"})
    return tmp_path / "lif.json"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    net = genome(
        8, 3, {8: 40, 9: 40, 10: 40, 11: 5}, [Synapse(6, 8, 20, 1), Synapse(5, 11, 40, 1), Synapse(11, 9, -7, 3)]
    )
    write_network(tmp_path / "iris.json", Network(net, Processor(), Encoding(), "iris"))
    return tmp_path / "iris.json"


def test_a_layered_net_is_exported_in_every_format_by_one_command(layered: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    formats = ["json", "nir", "tables", "drawing", "raster"]
    printed = ftnas("export", layered, "--format", *formats, "--sample", 4, "--out", tmp_path / "dist", "--json")
    assert printed.exit_code == 0, printed.output
    proofs = json.loads(printed.stdout)["proofs"]
    assert [(proof["format"], proof["same"]) for proof in proofs] == [
        ("json", 597), ("nir", 597), ("tables", 597), ("drawing", 0), ("raster", 0),
    ]  # fmt: skip
    names = {file.name for file in (tmp_path / "dist").iterdir()}
    assert {name for proof in proofs for name in proof["files"]} | {"proof.json"} == names
    assert "test image 4" in (tmp_path / "dist" / "net_raster.svg").read_text()
    assert ftnas("show", tmp_path / "dist").exit_code == 0


def test_a_graph_is_exported_in_every_format_by_one_command(graph: Path, tmp_path: Path) -> None:
    formats = ["json", "tables", "drawing", "raster"]
    printed = ftnas("export", graph, "--format", *formats, "--out", tmp_path / "dist", "--json")
    assert printed.exit_code == 0, printed.output
    proofs = json.loads(printed.stdout)["proofs"]
    assert [(proof["format"], proof["same"]) for proof in proofs] == [
        ("json", 45), ("tables", 45), ("drawing", 0), ("raster", 0),
    ]  # fmt: skip
    assert read_network(tmp_path / "dist" / "net.json") == read_network(graph)
    campaign = ["campaign", tmp_path / "dist", "--faults", "weights.gaussian:0.1", "--chips", 2]
    assert ftnas(*campaign, "--out", tmp_path / "c").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "nir"], "unknown format 'nir'; choose from json, tables, drawing, raster"),
        (["--format", "json", "--sample", "1"], "--sample: says which spikes a raster shows"),
        (["--format", "raster", "--sample", "45"], "sample 45: iris has test samples 0 to 44"),
        (["--format", "json", "--faults", "weights.gaussian:0.1"], "--faults: "),
        (["--format", "json", "--data", "wine"], "the task wine needs 26, got 8"),
    ],
)
def test_an_impossible_export_of_a_graph_is_refused_in_one_line(
    graph: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    printed = ftnas("export", graph, *words, "--out", tmp_path / "dist")
    assert printed.exit_code == 2 and message in printed.stderr and len(printed.stderr.splitlines()) == 1
    assert not (tmp_path / "dist").exists()


def test_both_families_are_shown_from_their_files(layered: Path, graph: Path) -> None:
    shown = ftnas("show", layered)
    assert shown.exit_code == 0, shown.output
    assert "19 neurons, 666 synapses; 3 steps" in shown.stdout and "data: digits" in shown.stdout
    of_graph = ftnas("show", graph)
    assert "iris: 8 inputs, 3 outputs, 1 hidden neurons, 3 synapses; 24 steps" in of_graph.stdout
    assert "h0" in of_graph.stdout and "out 1" in of_graph.stdout
    plain = json.loads(ftnas("show", graph, "--json").stdout)
    assert plain["family"] == "snn-graph" and len(plain["network"]["synapses"]) == 3


def test_options_that_change_nothing_of_a_spiking_net_are_refused(layered: Path) -> None:
    printed = ftnas("show", layered, "--bits", 4)
    assert printed.exit_code == 2 and "--bits: would change nothing" in printed.stderr


def test_a_graph_is_refused_where_it_is_no_net(graph: Path) -> None:
    printed = ftnas("sites", graph)
    assert printed.exit_code == 2 and "is a spiking graph; ftnas campaign, export, show and spikes" in printed.stderr


def test_an_unfinished_search_or_training_is_told_in_one_line(tmp_path: Path) -> None:
    for file, words in (("evolution.yaml", "has no winner yet"), ("spiking_training.yaml", "has no net yet")):
        folder = tmp_path / file
        write_text(folder / file, "family: snn\n")
        printed = ftnas("show", folder)
        assert printed.exit_code == 2 and words in printed.stderr and len(printed.stderr.splitlines()) == 1
