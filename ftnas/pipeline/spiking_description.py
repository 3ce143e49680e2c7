"""What can be said of a spiking net without measuring it: its parts, its cost, and the scores that its folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.errors import RunError
from ftnas.files import read_json
from ftnas.pipeline.evolution import RESULTS
from ftnas.pipeline.spiking_nets import TRAINED, graph_file, name_of, spiking_file
from ftnas.spiking.dense.json_file import facts_of, read_network_json
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.nir_file import read_nir
from ftnas.spiking.dense.stored import stored_layers
from ftnas.spiking.graph.network_file import Network, read_network

MOST_LINES = 40  # of neurons and synapses that are listed
Score = tuple[str, float, float | None, float | None]
Scores = tuple[Score, ...]


@dataclass(frozen=True)
class SpikingDescription:
    """A spiking net in words and numbers.

    Attributes:
        name: of the net.
        origin: the file that it is in.
        family: ``snn-graph`` or ``snn-dense``.
        summary: its parts in a line.
        head: names of the columns of ``parts``.
        parts: a line for each synapse of a graph, or each layer.
        scores: what was measured: of what, accuracy, and its interval where there is one.
        notes: what a reader must know.
        content: all of it as plain data.
    """

    name: str
    origin: str
    family: str
    summary: str
    head: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    scores: Scores
    notes: tuple[str, ...]
    content: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        keys = ("of", "accuracy", "low", "high")
        scores = [dict(zip(keys, score, strict=True)) for score in self.scores]
        about = {"name": self.name, "origin": self.origin, "family": self.family, "summary": self.summary}
        return {**about, **self.content, "scores": scores, "notes": list(self.notes)}


def describe_spiking(text: str) -> SpikingDescription | None:
    """Describe the spiking net that ``text`` means; ``None`` where it means another kind of net.

    Raises:
        RunError: its search or training is not finished.
        FtnasError: its file is damaged.
    """
    graph = graph_file(text)
    if graph is not None:
        return _of_graph(graph, read_network(graph))
    file = spiking_file(text)
    if file is None:
        return None
    return _of_layers(file, read_nir(file) if file.suffix == ".nir" else read_network_json(file))


def _of_graph(file: Path, network: Network) -> SpikingDescription:
    net = network.genome
    summary = (
        f"{network.task}: {net.inputs} inputs, {net.outputs} outputs, {len(net.hidden)} hidden neurons, "
        f"{len(net.synapses)} synapses; {network.encoding.steps} steps"
    )
    names = _names(network)
    lines = [
        (names[one.source], names[one.target], str(one.weight), str(one.delay), str(net.thresholds[one.target]))
        for one in net.synapses
    ]
    left_out = len(lines) - MOST_LINES
    notes = (f"{left_out:,} more synapses are in the file",) if left_out > 0 else ()
    head = ("from", "to", "weight", "delay", "its threshold")
    scores = _graph_scores(file, net.key)
    parts = tuple(lines[:MOST_LINES])
    return SpikingDescription(
        net.key, str(file), "snn-graph", summary, head, parts, scores, notes, {"network": network.to_dict()}
    )


def _names(network: Network) -> dict[int, str]:
    """Return what each neuron is called, as in the drawing."""
    net = network.genome
    inputs = {node: f"x{node // 2}{'-+'[node % 2]}" for node in range(net.inputs)}
    outputs = {node: f"out {node - net.inputs}" for node in range(net.inputs, net.first_hidden)}
    return inputs | outputs | {node: f"h{node - net.first_hidden}" for node in net.hidden}


def _graph_scores(file: Path, key: str) -> Scores:
    """Return what the evolution that ``file`` lies in has measured of the net."""
    results = file.parent.parent / RESULTS
    if not results.exists():
        return ()
    for net in _nets(results):
        if net.get("key") == key:
            clean = ("test samples, no faults", net["test"], None, None)
            return (clean, *((fault["fault"], fault["mean"], fault["low"], fault["high"]) for fault in net["faults"]))
    return ()


def _nets(results: Path) -> list[Any]:
    content = read_json(results)
    nets = content.get("nets") if isinstance(content, dict) else None
    if not isinstance(nets, list):
        raise RunError(f"{results}: holds no results of a search for spiking nets")
    return nets


def _of_layers(file: Path, net: SpikingNet) -> SpikingDescription:
    spec = net.spec
    summary = (
        f"{'x'.join(map(str, net.image_shape))} images, {net.classes} classes: {net.neurons:,} neurons, "
        f"{net.synapses:,} synapses; {spec.steps} steps, leak {spec.leak:g}, reset {spec.reset}"
    )
    parts = []
    for place, (stage, stored) in enumerate(zip(net.stages, stored_layers(net), strict=True)):
        last = place + 1 == len(net.stages)
        shape = "x".join(map(str, stage.neurons.shape))
        threshold = f"{stored.threshold * spec.membrane_step:.3g}"
        bits = (str(stored.number.bits), str(spec.membrane_bits))
        parts.append(("output" if last else str(place), shape, f"{stored.codes.numel():,}", threshold, *bits))
    head = ("layer", "neurons", "synapses", "threshold", "weight bits", "membrane bits")
    facts = {} if file.suffix == ".nir" else facts_of(file)
    defences = {"bounding": spec.bounding != "none", "reset guard": spec.reset_guard is not None}
    notes = [f"{key}: {value}" for key, value in facts.items() if key in ("data", "source")]
    notes += [f"defence: {name}" for name, has in defences.items() if has]
    content = {"specification": spec.model_dump(mode="json"), "facts": facts}
    return SpikingDescription(
        name_of(file), str(file), "snn-dense", summary, head, tuple(parts), _layer_scores(file), tuple(notes), content
    )


def _layer_scores(file: Path) -> Scores:
    """Return what the search, or the training, that ``file`` lies in has measured of the net."""
    beside = file.with_name("result.json") if file.name == TRAINED else file.with_name(f"{file.stem}.result.json")
    if not beside.exists():
        return ()
    result = read_json(beside)
    scores: list[Score] = [("test images, no faults", result["clean"], None, None)]
    chip = result.get("chip") or {}
    if "trained" in chip:
        scores.append((f"the chip of its map, {chip['faults']:,} faults", chip["trained"], None, None))
    if "faulty" in result:
        rates = [("the faults of its search", result["faulty"])]
    else:
        rates = [(" + ".join(rate["faults"]), rate) for rate in result.get("rates", ())]
    return tuple(scores + [(name, rate["mean"], rate["low"], rate["high"]) for name, rate in rates])
