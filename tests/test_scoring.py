"""Scores of candidates: paired, and a function of the genotype alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ftnas.faults import Fault, parse_fault
from ftnas.networks import CellNetwork
from ftnas.runtime import keyed_generator, seeded
from ftnas.search.candidates import Score
from ftnas.search.scoring import Scorer
from ftnas.space import Genotype, load_space

SPACE = load_space("tiny")
# Those that hold weights: the others hardly feel a fault.
GENOTYPES = [g for g in SPACE.enumerate() if all(e.operator == "sep_conv_3x3" for node in g.normal for e in node)][:3]


def scorer(*, faults: tuple[Fault, ...] = (parse_fault("features.mac_bit_bias:0.05"),), chips: int = 3) -> Scorer:
    """Return a scorer of an untrained supernet."""
    with seeded("test supernet"):
        supernet = CellNetwork(SPACE, SPACE.search, image_shape=(1, 8, 8), classes=10)
    rng = keyed_generator("test images")
    images, calibration = (torch.rand(count, 1, 8, 8, generator=rng) for count in (60, 40))
    labels = torch.randint(10, (60,), generator=rng)
    return Scorer(supernet, images, labels, calibration, faults, chips=chips, study="test")


def test_the_same_genotype_has_the_same_score_twice() -> None:
    score = scorer()
    assert score(GENOTYPES[0]) == score(GENOTYPES[0])


def test_scores_differ_between_genotypes_and_chips() -> None:
    score = scorer()
    assert len({score(genotype) for genotype in GENOTYPES}) == len(GENOTYPES)
    assert len(set(score(GENOTYPES[0]).chips)) > 1


def test_a_score_does_not_depend_on_what_was_scored_before() -> None:
    first = scorer()
    forward = [first(genotype) for genotype in GENOTYPES]
    second = scorer()
    backward = [second(genotype) for genotype in reversed(GENOTYPES)]
    assert forward == backward[::-1]
    assert all(scorer()(genotype) == score for genotype, score in zip(GENOTYPES, forward, strict=True))


def test_a_score_does_not_depend_on_what_began_the_learned_ranges_that_no_training_step_reached() -> None:
    space = load_space("digits")
    assert any(choice.feature_range.policy == "learned" for choice in space.quantization)
    genotypes = [space.sample(keyed_generator("learned", number)) for number in range(6)]

    def scores(order: list[Genotype]) -> dict[str, Score]:
        with seeded("test supernet"):
            supernet = CellNetwork(space, space.search, image_shape=(1, 8, 8), classes=10)
        plain = scorer()
        images = (plain.images, plain.labels, plain.calibration)
        score = Scorer(supernet, *images, faults=(), chips=1, study="test")
        return {genotype.key: score(genotype) for genotype in order}

    assert scores(genotypes) == scores(genotypes[::-1])


def test_a_score_does_not_depend_on_the_statistics_that_training_left() -> None:
    score = scorer()
    before = score(GENOTYPES[0])
    score.supernet.train()
    with torch.no_grad():
        score.supernet(5 + 3 * score.images, GENOTYPES[0])
    assert score(GENOTYPES[0]) == before


def test_scoring_leaves_the_shared_weights_alone() -> None:
    score = scorer()
    before = {name: value.clone() for name, value in score.supernet.named_parameters()}
    score(GENOTYPES[0])
    assert all(torch.equal(before[name], value) for name, value in score.supernet.named_parameters())


def test_the_mean_of_the_chips_is_the_faulty_accuracy() -> None:
    score = scorer()(GENOTYPES[0])
    assert score.faulty == pytest.approx(sum(score.chips) / 3)


def test_without_faults_all_chips_are_clean() -> None:
    score = scorer(faults=(parse_fault("features.mac_bit_bias:0"),))(GENOTYPES[0])
    assert score.chips == 3 * (score.clean,)


def test_fresh_chips_are_not_those_of_the_study() -> None:
    score = scorer()
    fresh = score.fresh(GENOTYPES[0], 3)
    assert fresh.chips != score(GENOTYPES[0]).chips
    # They are the next ones of the same study.
    assert score.score(GENOTYPES[0], range(6)).chips == score(GENOTYPES[0]).chips + fresh.chips


def test_fresh_chips_leave_the_clean_accuracy_as_it_is() -> None:
    score = scorer()
    assert score.fresh(GENOTYPES[0], 2).clean == score(GENOTYPES[0]).clean


def test_a_chip_is_the_same_among_few_and_among_many() -> None:
    many, few = scorer(chips=5), scorer(chips=2)
    assert many(GENOTYPES[1]).chips[:2] == few(GENOTYPES[1]).chips


def test_scorers_of_one_study_see_the_same_chips_and_others_see_others() -> None:
    def chips(study: str, genotype: Genotype) -> tuple[float, ...]:
        result: Score = dataclasses.replace(scorer(), study=study)(genotype)
        return result.chips

    assert chips("a", GENOTYPES[0]) == chips("a", GENOTYPES[0])
    assert chips("a", GENOTYPES[0]) != chips("b", GENOTYPES[0])
