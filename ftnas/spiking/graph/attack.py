"""Campaigns on graphs of neurons: the same records and intervals as for any other net."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftnas import __version__
from ftnas.campaign.attack import Attack, ChipResult, Conduct, Goal, conduct
from ftnas.campaign.levels import check_rates, stepped
from ftnas.campaign.outcomes import outcomes
from ftnas.campaign.records import SCHEMA
from ftnas.errors import FaultError
from ftnas.spiking.graph.batch import NetworkBatch, batch_of
from ftnas.spiking.graph.network_file import Network
from ftnas.spiking.graph.perturbation import Perturbation, on_chips, parse_perturbations
from ftnas.spiking.graph.simulator import spike_counts
from ftnas.spiking.graph.tasks import Classification, Task


@dataclass(frozen=True, slots=True)
class GraphLevel:
    """Faults at one strength, that of the first."""

    rate: float
    faults: tuple[Perturbation, ...]


def graph_levels(texts: Sequence[str]) -> tuple[GraphLevel, ...]:
    """Return one level for each strength that ``texts`` list; see ``campaign.levels.levels_of``.

    Raises:
        CampaignError: the strengths do not fit together.
        FaultError: a text or strength is impossible.
    """
    levels = tuple(GraphLevel(step[0].strength, tuple(step)) for step in stepped([*map(parse_perturbations, texts)]))
    check_rates([level.rate for level in levels])
    return levels


def attack_graph(
    network: Network, task: Task, faults: Sequence[str], *, goal: Goal, how: Conduct, study: str = "campaign"
) -> ChipResult:
    """Measure a graph on faulty chips and the test samples of ``task``, as ``campaign.run`` does for other nets.

    Logits are the spikes of each output. A task without samples, such as a pole to balance, has a score only.

    Args:
        network: the net and its processor.
        task: with as many inputs and outputs.
        faults: each with its strengths, as ``weights.gaussian:0.1,0.2``.
        goal: when it is sure enough.
        how: where the records go, and who does the work.
        study: chips are the same for every net of one study.

    Raises:
        CampaignError: an argument is impossible, or the folder holds another campaign.
        FaultError: a fault is impossible, or meets nothing of the net.
    """
    levels, clean = graph_levels(faults), batch_of([network.genome], network.processor)
    where = ", ".join(_sites(network, fault) for fault in levels[0].faults)
    header = {
        "schema": SCHEMA,
        "campaign": "chips",
        "study": study,
        "faults": [[str(fault) for fault in level.faults] for level in levels],
        "net": network.to_dict(),
        "data": {"task": task.name, "hash": _data_hash(task)},
        "versions": {"ftnas": __version__, "numpy": np.__version__},
    }
    right = float(task.scores(clean, "test")[0])
    population = f"all chips of study {study!r}, without end; on each, drawn anew: {where}"
    return conduct(Attack(header, population, right, levels, _measure(clean, task, levels, study)), goal, how)


def _measure(
    clean: NetworkBatch, task: Task, levels: Sequence[GraphLevel], study: str
) -> Callable[[int, int, Callable[[], None]], Mapping[str, Any]]:
    """Return what a chip goes through at one level."""
    golden = _logits(clean, task) if isinstance(task, Classification) else None

    def measure(level: int, chip: int, check: Callable[[], None]) -> Mapping[str, Any]:
        check()
        broken = on_chips(clean, levels[level].faults, [chip], study)
        changed = sum(int((getattr(broken, name) != getattr(clean, name)).sum()) for name in ("weights", "thresholds"))
        found: dict[str, Any] = {"faults": {"effective": changed}}
        if golden is None or not isinstance(task, Classification):
            return found | {"score": float(task.scores(broken, "test")[0])}
        return found | {"images": outcomes(golden, _logits(broken, task), task.test[1]).to_dict()}

    return measure


def _logits(batch: NetworkBatch, task: Classification) -> NDArray[np.float32]:
    """Return how often each output of the one net fires for each test sample, ``[N, K]``."""
    return np.ascontiguousarray(spike_counts(batch, task.test[0])[0].T, np.float32)


def _sites(network: Network, fault: Perturbation) -> str:
    """Return what of the net ``fault`` can hit, in words."""
    net = network.genome
    part = "neurons" if fault.name.startswith("neurons") else "synapses"
    count = len(net.thresholds) if part == "neurons" else len(net.synapses)
    if not count:
        raise FaultError(f"{fault.name}: the net has no {part} that it can hit")
    inputs = f" and {net.inputs} inputs" if fault.name == "neurons.dead" else ""
    return f"{fault.name} in {count} {part}{inputs}"


def _data_hash(task: Task) -> str:
    """Return a digest of the test samples: other versions of scikit-learn may bring others."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(task, Classification):
        for array in task.test:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
