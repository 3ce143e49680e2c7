"""Warnings of a run: they name whose cell has collapsed, and which net is no better than guessing."""

from __future__ import annotations

from pathlib import Path

import pytest
from quick_runs import QUICK

from ftnas.cost import Cost
from ftnas.files import write_json
from ftnas.pipeline.config import RunConfig
from ftnas.pipeline.run_folder import RunFolder
from ftnas.pipeline.warnings import search_warnings, training_warnings
from ftnas.search.candidates import Candidate, Score
from ftnas.space import Edge, Genotype, load_space

SPACE = load_space("tiny")


def cell(*operators: str) -> Genotype:
    """Return a genotype of the tiny space whose edges have these operators."""
    first, second, third, fourth = (Edge(operator, 0, SPACE.quantization[0]) for operator in operators)
    return Genotype(((first, second), (third, fourth)))


SKIPS = cell("skip_connect", "skip_connect", "skip_connect", "sep_conv_3x3")
OTHER_SKIPS = cell("skip_connect", "skip_connect", "none", "none")
CONVOLUTIONS = cell(*["sep_conv_3x3"] * 4)
HALF = cell("skip_connect", "skip_connect", "sep_conv_3x3", "sep_conv_3x3")


def candidate(genotype: Genotype, trial: int, source: str) -> Candidate:
    return Candidate(genotype, Score(0.9, 0.8, (0.8, 0.8)), Cost(1, 1, 8), trial, source)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    config = RunConfig.model_validate(QUICK | {"search": {"trials": 1}})
    return RunFolder(tmp_path, config, SPACE)


def collapsed(run: RunFolder, *derived: tuple[str, Genotype], winner: Genotype = CONVOLUTIONS) -> list[str]:
    candidates = [candidate(genotype, trial, source) for trial, (source, genotype) in enumerate(derived)]
    return search_warnings(run, candidates, winner)


@pytest.mark.parametrize(
    ("source", "owner"),
    [
        ("magnitude", "the architecture weights' proposal by magnitude"),
        ("perturbation", "the supernet's proposal by perturbation"),
    ],
)
def test_a_collapsed_proposal_is_named_by_how_it_was_derived(source: str, owner: str, run: RunFolder) -> None:
    assert collapsed(run, (source, SKIPS)) == [
        f"the normal cell of {owner} ({SKIPS.key}) has collapsed: 75% of its edges are skip_connect or none"
    ]


def test_a_collapsed_winner_is_called_the_winner(run: RunFolder) -> None:
    assert collapsed(run, ("sampler", SKIPS), winner=SKIPS) == [
        f"the normal cell of the winner ({SKIPS.key}) has collapsed: 75% of its edges are skip_connect or none"
    ]


def test_a_cell_that_is_proposal_and_winner_is_warned_of_once(run: RunFolder) -> None:
    assert collapsed(run, ("magnitude", OTHER_SKIPS), ("perturbation", SKIPS), winner=SKIPS) == [
        f"the normal cell of the architecture weights' proposal by magnitude ({OTHER_SKIPS.key}) has collapsed: "
        "100% of its edges are skip_connect or none",
        f"the normal cell of the supernet's proposal by perturbation and of the winner ({SKIPS.key}) has collapsed: "
        "75% of its edges are skip_connect or none",
    ]


def test_what_the_sampler_proposed_and_half_a_cell_are_no_collapse(run: RunFolder) -> None:
    assert collapsed(run, ("magnitude", HALF), ("sampler", SKIPS)) == []


def test_failed_trainings_are_warned_of_by_label_and_folder(run: RunFolder) -> None:
    for name, label, failure in (
        ("matched1-a", "random cell 1", "diverged in training at epoch 3"),
        ("top1-b", "leader 1", None),
        ("top2-c", "leader 2", "learned nothing in training"),
    ):
        write_json(run.file("trainings", name, "result.json"), {"name": name, "label": label, "failure": failure})
    # As an earlier version of ftnas left it.
    write_json(run.file("trainings", "old", "result.json"), {"name": "old", "label": "old"})
    assert training_warnings(run) == [
        "random cell 1 (trainings/matched1-a) diverged in training at epoch 3: its accuracy is that of guessing",
        "leader 2 (trainings/top2-c) learned nothing in training: its accuracy is that of guessing",
    ]
