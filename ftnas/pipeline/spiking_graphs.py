"""One spiking graph: measured on its task, and written as tables, drawing and raster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.estimates import estimate
from ftnas.files import write_text
from ftnas.report.raster import write_png
from ftnas.report.spiking_graph import graph_figure, raster_figure
from ftnas.spiking.graph.batch import batch_of
from ftnas.spiking.graph.network_file import Network, read_network, write_network
from ftnas.spiking.graph.perturbation import parse_perturbations
from ftnas.spiking.graph.scoring import scores_of
from ftnas.spiking.graph.simulator import spike_trains
from ftnas.spiking.graph.tables import c_tables, neuron_table, synapse_table
from ftnas.spiking.graph.tasks import Task, demand_fit, load_task

CHIPS = 50


@dataclass(frozen=True)
class GraphMeasured:
    """What was measured of a net.

    Attributes:
        network: the net.
        task: the name of the task.
        accuracy: on test samples without faults.
        faults: for each fault and strength its name, mean, interval and the accuracy on each chip.
    """

    network: Network
    task: str
    accuracy: float
    faults: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        net = self.network.genome
        cost = {"synapses": len(net.synapses), "hidden": len(net.hidden)}
        return {"task": self.task, **cost, "accuracy": self.accuracy, "faults": list(self.faults)}


def measure_graph(
    path: Path,
    *,
    task: str | None = None,
    faults: Sequence[str] = (),
    chips: int = CHIPS,
    sample: int = 0,
    out: Path | None = None,
) -> GraphMeasured:
    """Read a net from a JSON file, measure it on the test samples of a task and, with ``out``, write it there.

    Args:
        path: of the file.
        task: by default that of the file.
        faults: each with its strengths, as ``weights.gaussian:0.1,0.2``.
        chips: for each strength.
        sample: of the test, whose spikes are drawn.
        out: the folder for tables, drawing and raster.

    Raises:
        SpikingError: the file is no net, or it does not fit the task.
        FaultError: a fault is impossible.
    """
    network = read_network(path)
    levels = [level for text in faults for level in parse_perturbations(text)]
    found = load_task(task or network.task, network.encoding)
    demand_fit(network.genome.inputs, network.genome.outputs, found, str(path))
    if out is not None:
        write_graph(out, network, found, sample=sample)
    rows, accuracy = [], _scores(network, found, (), 0)[0].clean
    for level in levels:
        measured = estimate(_scores(network, found, (level,), chips)[0].chips, CONFIDENCE)
        ends = {"low": measured.interval.low, "high": measured.interval.high}
        rows.append({"fault": str(level), "mean": measured.mean, **ends})
    return GraphMeasured(network, found.name, accuracy, tuple(rows))


def _scores(network: Network, task: Task, faults: Sequence[Any], chips: int) -> list[Any]:
    return scores_of(
        [network.genome],
        processor=network.processor,
        task=task,
        faults=faults,
        chips=range(chips),
        study="test",
        split="test",
    )


def winner_figures(network: Network, task: Task, *, sample: int) -> tuple[str, str]:
    """Return the drawing of a net, and the raster of what it fires for a test sample, as SVG."""
    net = network.genome
    inputs = task.example(sample)
    batch = batch_of([net], network.processor)
    trains = spike_trains(batch, inputs[:, :, None])[:, :, 0]
    fired = {int(node): trains[:, row].tolist() for row, node in enumerate(batch.row_node)}
    drawing = graph_figure(net, network.processor.weight_max, f"{task.name}: {len(net.synapses)} synapses")
    shown = [[bool(spike) for spike in step] for step in inputs]
    return drawing, raster_figure(net, shown, fired, f"{task.name}, test sample {sample}")


def write_graph(folder: Path, network: Network, task: Task, *, sample: int) -> None:
    """Write a net as JSON, fixed-point tables (CSV, C header), drawing and spike raster (SVG, PNG)."""
    drawing, raster = winner_figures(network, task, sample=sample)
    write_network(folder / "network.json", network)
    write_text(folder / "neurons.csv", neuron_table(network.genome))
    write_text(folder / "synapses.csv", synapse_table(network.genome, network.processor))
    write_text(folder / "network.h", c_tables(network))
    for name, figure in (("network", drawing), ("raster", raster)):
        write_text(folder / f"{name}.svg", figure)
        write_png(figure, folder / f"{name}.png")
