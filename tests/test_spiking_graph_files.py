"""Spiking graphs as files: read back equal, refused in one line, and drawn."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from graph_nets import PROCESSOR, genomes
from hypothesis import given

from ftnas.errors import SpikingError
from ftnas.report.spiking_graph import graph_figure, raster_figure
from ftnas.spiking.graph.encoding import Encoding
from ftnas.spiking.graph.genome import Genome, Synapse, genome
from ftnas.spiking.graph.network_file import Network, read_network, write_network
from ftnas.spiking.graph.tables import c_tables, neuron_table, synapse_table

NET = genome(
    8, 3, {8: 20, 9: 30, 10: 40, 11: 5}, [Synapse(0, 11, -1, 2), Synapse(11, 8, 127, 1), Synapse(8, 8, -127, 4)]
)
NETWORK = Network(NET, PROCESSOR, Encoding(), "iris")


@given(genomes())
def test_a_net_is_read_back_equal(tmp_path_factory: pytest.TempPathFactory, net: Genome):
    path = tmp_path_factory.getbasetemp() / "net.json"
    write_network(path, Network(net, PROCESSOR, Encoding(), "iris"))
    assert read_network(path) == Network(net, PROCESSOR, Encoding(), "iris")


def changed(tmp_path: Path, *place: Any, value: Any) -> Path:
    """Write a net with one value changed, or with ``...`` taken away."""
    content = NETWORK.to_dict()
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    path = tmp_path / "net.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("synapses", 0, "to"), 99, ["synapse 0", "neuron 99", "does not exist"]),
        (("synapses", 2, "from"), 14, ["neuron 14", "does not exist"]),
        (("synapses", 0, "delay"), 0, ["delay is 0", "1 to 4"]),
        (("synapses", 0, "weight"), 1.5, ["synapse 0", "weight", "whole number", "1.5"]),
        (("synapses", 0, "weight"), ..., ["weight is missing"]),
        (("synapses", 0), 7, ["synapse 0", "from, to, weight, delay", "7"]),
        (("synapses", 0, "colour"), 1, ["unknown key 'colour'"]),
        (("synapses",), {}, ["synapses", "list", "dict"]),
        (("neurons", 0, "threshold"), 0, ["neuron 8", "threshold is 0"]),
        (("neurons", 1, "id"), 8, ["neuron 8", "twice"]),
        (("inputs",), 0, ["inputs", "from 1", "0"]),
        (("inputs",), 9, ["neuron 8"]),
        (("processor", "weight_bits"), 99, ["processor", "weight_bits", "99"]),
        (("processor",), 3, ["processor", "object", "int"]),
        (("encoding", "steps"), "many", ["encoding", "steps"]),
        (("task",), "chess", ["task 'chess'", "iris"]),
        (("format",), "other", ["is no spiking graph"]),
        (("neurons",), ..., ["neurons is missing"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, place: tuple[Any, ...], value: Any, words: list[str]):
    path = changed(tmp_path, *place, value=value)
    with pytest.raises(SpikingError) as caught:
        read_network(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not whole JSON"), ("[]", "no spiking graph"), (None, "cannot be read")]
)
def test_what_is_no_net_at_all_is_refused(tmp_path: Path, text: str | None, words: str):
    path = tmp_path / "net.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SpikingError, match=words) as caught:
        read_network(path)
    assert "delete it" not in str(caught.value)


def test_tables_hold_the_codes_that_a_memory_stores():
    rows = list(csv.DictReader(io.StringIO(synapse_table(NET, PROCESSOR))))
    assert [(row["weight"], row["code"]) for row in rows] == [("-1", "0xff"), ("-127", "0x81"), ("127", "0x7f")]
    neurons = list(csv.DictReader(io.StringIO(neuron_table(NET))))
    assert [row["role"] for row in neurons] == 8 * ["input"] + 3 * ["output"] + ["hidden"]
    assert [row["threshold"] for row in neurons[8:]] == ["20", "30", "40", "5"]


@pytest.mark.parametrize("net", [NET, genome(8, 3, {8: 1, 9: 1, 10: 1}, [])], ids=["some", "none"])
def test_the_header_is_c_that_holds_the_net(tmp_path: Path, net: Genome):
    compiler = shutil.which("cc") or pytest.skip("no C compiler here")
    (tmp_path / "network.h").write_text(c_tables(Network(net, PROCESSOR, Encoding(), "iris")), encoding="utf-8")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "network.h"\nint main(void) {\n'
        'for (int i = 0; i < SNN_NEURONS; i++) printf("%d %d\\n", snn_neuron_number[i], snn_neuron_threshold[i]);\n'
        'for (int i = 0; i < SNN_SYNAPSES; i++) printf("%d %d %d %d\\n", snn_synapse_source[i], snn_synapse_target[i],'
        " snn_synapse_weight[i], snn_synapse_delay[i]);\nreturn 0; }\n",
        encoding="utf-8",
    )
    subprocess.run([compiler, "-Wall", "-Werror", "-o", str(tmp_path / "a"), str(tmp_path / "main.c")], check=True)
    printed = subprocess.run([str(tmp_path / "a")], capture_output=True, text=True, check=True).stdout
    lines = [f"{node} {threshold}" for node, threshold in net.thresholds.items()]
    lines += [" ".join(map(str, synapse)) for synapse in net.synapses]
    assert printed.splitlines() == lines


def test_a_drawing_shows_every_synapse_and_only_the_inputs_that_are_read():
    drawing = graph_figure(NET, 127, "a <net>")
    ET.fromstring(drawing)
    for words in (
        "0 to 11: weight -1, delay 2",
        "8 to 8: weight -127, delay 4",
        "7 more are not read",
        "a &lt;net&gt;",
    ):
        assert words in drawing
    assert "x0-" in drawing and "x1" not in drawing


def test_a_raster_has_a_mark_for_every_spike():
    inputs = [[step == 0] + 7 * [True] for step in range(6)]
    fired = {node: [False, True, True, False, False, node == 8] for node in NET.thresholds}
    drawing = raster_figure(NET, inputs, fired, "spikes")
    ET.fromstring(drawing)
    marks = len(re.findall(r'stroke-width="2.4"', drawing))
    assert marks == 1 + 4 * 2 + 1  # of the inputs only the first is read
