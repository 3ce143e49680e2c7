"""How good nets are without faults and on faulty chips, all nets and all chips in one simulation."""

from __future__ import annotations

from collections.abc import Sequence

from ftnas.search.candidates import Score
from ftnas.spiking.graph.batch import batch_of, joined
from ftnas.spiking.graph.genome import Genome, Processor
from ftnas.spiking.graph.perturbation import Perturbation, on_chips
from ftnas.spiking.graph.tasks import Split, Task


def scores_of(
    genomes: Sequence[Genome],
    *,
    processor: Processor,
    task: Task,
    faults: Sequence[Perturbation],
    chips: Sequence[int],
    study: str,
    split: Split = "train",
) -> list[Score]:
    """Return the score of each net, on the same chips for all: without faults, on each chip, and the chips' mean.

    Without ``faults`` or ``chips`` nothing is disturbed and the mean is the accuracy without faults.
    """
    if not genomes:
        return []
    clean = batch_of(genomes, processor)
    disturbed = [chip for chip in chips if any(fault.strength for fault in faults)]
    batches = [clean, *([on_chips(clean, faults, disturbed, study)] if disturbed else [])]
    found = task.scores(joined(batches), split).reshape(-1, len(genomes))
    accuracies = [column.tolist() for column in found.T]
    return [_score(first, rest or [first] * len(chips)) for first, *rest in accuracies]


def _score(clean: float, chips: Sequence[float]) -> Score:
    return Score(clean, sum(chips) / len(chips) if chips else clean, tuple(chips))
