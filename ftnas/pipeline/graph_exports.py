"""Spiking graphs that leave the run folder, as the files that `ftnas spikes` writes, each table read back first."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftnas import __version__
from ftnas.errors import ExportError
from ftnas.export.exporting import chosen_formats, workshop
from ftnas.export.proof import Proof, Proofs
from ftnas.files import write_text
from ftnas.pipeline.spiking_exports import check_new, finished, picture, write_picture
from ftnas.pipeline.spiking_graphs import winner_figures
from ftnas.spiking.graph.batch import batch_of
from ftnas.spiking.graph.genome import Synapse, genome
from ftnas.spiking.graph.network_file import Network, read_network, write_network
from ftnas.spiking.graph.simulator import answers, spike_counts
from ftnas.spiking.graph.tables import c_tables, neuron_table, synapse_table
from ftnas.spiking.graph.tasks import Classification, Task, demand_fit, load_task

GRAPH_FORMATS = ("json", "tables", "drawing", "raster")


def export_graph(
    file: Path, formats: Sequence[str], out: Path, *, name: str, task: str | None = None, sample: int = 0
) -> Proofs:
    """Write the graph in ``file`` into the new folder ``out`` in each of ``formats``; all files or none.

    Args:
        file: with the net.
        formats: of ``json`` and ``tables``, each read back and run, ``drawing`` and ``raster``.
        out: a new folder, or an empty one.
        name: of the files.
        task: on whose test samples nets are compared, by default that of the file.
        sample: the test sample whose spikes ``raster`` shows.

    Raises:
        ExportError: a file does not read back to the same spikes, or ``out`` holds something.
        SpikingError: the file is no net, or it does not fit the task.
    """
    wanted = chosen_formats(formats, GRAPH_FORMATS)
    check_new(out)
    network = read_network(file)
    found = load_task(task or network.task, network.encoding)
    demand_fit(network.genome.inputs, network.genome.outputs, found, str(file))
    facts = {"ftnas": __version__, "source": str(file), "data": found.name, "chip": "fault-free"}
    with workshop(out) as place:
        proofs = tuple(_written(form, network, found, place, name=name, sample=sample) for form in wanted)
        return finished(place, out, name, facts, proofs)


def _written(form: str, network: Network, task: Task, place: Path, *, name: str, sample: int) -> Proof:
    """Write one format and return how equal what was read back is."""
    if form in ("drawing", "raster"):
        drawing, raster = winner_figures(network, task, sample=sample)
        return picture(form, write_picture(place, f"{name}_{form}", drawing if form == "drawing" else raster))
    files, again = NETS[form](network, place, name)
    return _compared(form, files, network, again, task)


def _compared(form: str, files: Sequence[str], network: Network, again: Network, task: Task) -> Proof:
    """Return how many test samples, or states of the task, make the same spikes in the net that was read back.

    Raises:
        ExportError: one does not.
    """
    if again.genome != network.genome or again.processor != network.processor:
        raise ExportError(f"{form}: the file that was read back holds another net")
    counts = [_counts(one, task) for one in (network, again)]
    apart = float(np.abs(counts[0] - counts[1]).max())
    same = int((answers(counts[0][None]) == answers(counts[1][None])).sum())
    if apart:
        raise ExportError(f"{form}: the net that was read back fires otherwise")
    return Proof(form, "ftnas", tuple(files), images=counts[0].shape[1], same=same, largest=apart, beyond=0)


def _counts(network: Network, task: Task) -> NDArray[np.int64]:
    """Return how often each output fires ``[outputs, N]``, for all test samples or, without any, for the first."""
    spikes = task.test[0] if isinstance(task, Classification) else task.example(0)[:, :, None]
    return np.asarray(spike_counts(batch_of([network.genome], network.processor), spikes)[0])


def _json(network: Network, place: Path, name: str) -> tuple[tuple[str, ...], Network]:
    file = place / f"{name}.json"
    write_network(file, network)
    return (file.name,), read_network(file)


def _tables(network: Network, place: Path, name: str) -> tuple[tuple[str, ...], Network]:
    neurons, synapses, header = (place / f"{name}{end}" for end in ("_neurons.csv", "_synapses.csv", ".h"))
    write_text(neurons, neuron_table(network.genome))
    write_text(synapses, synapse_table(network.genome, network.processor))
    write_text(header, c_tables(network))
    return (neurons.name, synapses.name, header.name), _from_tables(network, neurons, synapses)


def _from_tables(network: Network, neurons: Path, synapses: Path) -> Network:
    """Return ``network`` with the neurons and synapses that the tables hold."""
    own, lines = (list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) for file in (neurons, synapses))
    thresholds = {int(row["neuron"]): int(row["threshold"]) for row in own if row["threshold"]}
    inputs = sum(row["role"] == "input" for row in own)
    outputs = sum(row["role"] == "output" for row in own)
    read = [Synapse(*(int(row[key]) for key in ("source", "target", "weight", "delay"))) for row in lines]
    return replace(network, genome=genome(inputs, outputs, thresholds, read))


NETS: Mapping[str, Callable[[Network, Path, str], tuple[tuple[str, ...], Network]]] = {"json": _json, "tables": _tables}
