"""What the parts of the benchmark of scaling have in common."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ftnas.cost import Cost, genotype_cost
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.run_folder import reopen_run
from ftnas.pipeline.shared_weights import make_scorer, read_supernet, study_scorer
from ftnas.runtime import key_seed, keyed_generator
from ftnas.search.candidates import Score
from ftnas.search.scoring import Scorer
from ftnas.space import Genotype, load_space

SPACE = load_space("digits")
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    run: Path
    trials: int
    rounds: int


def instant(genotype: Genotype) -> Score:
    """Score by the cost and by luck, in no time."""
    luck = key_seed(genotype.key) % 1000 / 1000
    accuracy = min(1.0, 0.2 + cost_of(genotype).flops / 2e6 + 0.3 * luck)
    return Score(accuracy, 0.8 * accuracy, (0.8 * accuracy,) * 8)


def cost_of(genotype: Genotype) -> Cost:
    """Return the cost on 8 x 8 images."""
    return genotype_cost(genotype, SPACE, SPACE.final, image_shape=(1, 8, 8))


def scoring_seconds(run: Path) -> float:
    """Return the median seconds of scoring a candidate of ``run`` in one process."""
    scorer, genotypes = scorer_of(run)
    return statistics.median(timed(scorer, genotype) for genotype in genotypes)


def scorer_of(run: Path, **how: int) -> tuple[Scorer, list[Genotype]]:
    """Return a scorer with the weights of ``run`` that is warm, and architectures."""
    there = reopen_run(run)
    data = load_dataset(there.config, torch.device("cpu"))
    supernet = read_supernet(there, data)
    scorer = make_scorer(there, data, supernet, **how) if how else study_scorer(there, data, supernet)
    genotypes = [there.space.sample(keyed_generator("scaling", number)) for number in range(8)]
    scorer(genotypes[0])  # pays for what comes first
    return scorer, genotypes


def timed(scorer: Callable[[Genotype], Score], genotype: Genotype) -> float:
    """Return the seconds that scoring ``genotype`` takes."""
    start = time.perf_counter()
    scorer(genotype)
    return time.perf_counter() - start
