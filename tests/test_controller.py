"""The study: what it proposes, what it scores, and that stopping it changes nothing."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import NSGAIISampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from ftnas.cost import Cost, genotype_cost
from ftnas.errors import RunError, SpaceError
from ftnas.runtime import key_seed, keyed_generator
from ftnas.search.candidates import Candidate, Limits, Score
from ftnas.search.controller import ControllerSettings, run_study, shortfall
from ftnas.search.journal import TrialJournal
from ftnas.search.ledger import settled
from ftnas.space import Edge, Genotype, SearchSpace, Sizes, load_space

TINY = load_space("tiny")
DIGITS = load_space("digits")
NARROW = SearchSpace(
    name="narrow",
    operators=("conv_1x1", "skip_connect"),
    quantization=TINY.quantization[:1],
    nodes=1,
    inputs_per_node=1,
    search=Sizes(channels=4, cells=1),
    final=Sizes(channels=4, cells=1),
)


def cost(genotype: Genotype) -> Cost:
    space = DIGITS if genotype.reduction else TINY if len(genotype.normal) == 2 else NARROW
    return genotype_cost(genotype, space, space.final, image_shape=(1, 8, 8))


def score(genotype: Genotype) -> Score:
    """An accuracy that grows with cost, and luck."""
    luck = key_seed(genotype.key) % 1000 / 1000
    accuracy = min(1.0, 0.2 + cost(genotype).flops / 2e6 + 0.3 * luck)
    return Score(accuracy, 0.8 * accuracy, (0.7 * accuracy, 0.9 * accuracy))


def settings_for(sampler: str, *, trials: int = 30, **more: object) -> ControllerSettings:
    return ControllerSettings.model_validate({"sampler": sampler, "trials": trials, **more})


def run(
    journal: Path,
    settings: ControllerSettings,
    *,
    space: SearchSpace = DIGITS,
    evaluate: Callable[[Genotype], Score] = score,
    first: Sequence[tuple[str, Genotype]] = (),
    seed: int = 1,
) -> list[Candidate]:
    return run_study(
        space,
        evaluate=evaluate,
        cost=cost,
        settings=settings,
        first=first,
        journal=journal,
        seed=seed,
        on_trial=lambda number, candidate: None,
    )


def study_in(journal: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=None, storage=storage)


def history(journal: Path) -> list[tuple[object, ...]]:
    return [(t.number, t.state, t.params, t.values, t.user_attrs) for t in study_in(journal).get_trials()]


def derived(*names: str) -> list[tuple[str, Genotype]]:
    return [(name, settled(DIGITS, DIGITS.sample(keyed_generator(name)))) for name in names]


class Stopped(Exception):
    """Stands for Ctrl-C and every other end in the middle."""


def stopping_after(evaluations: int) -> Callable[[Genotype], Score]:
    left = iter(range(evaluations))

    def evaluate(genotype: Genotype) -> Score:
        if next(left, None) is None:
            raise Stopped
        return score(genotype)

    return evaluate


def run_in_parts(journal: Path, evaluations: int, **how: Any) -> list[Candidate]:
    """Stop inside each evaluation after so many, and go on, until the study is finished."""
    while True:
        try:
            return run(journal, evaluate=stopping_after(evaluations), **how)
        except Stopped:
            continue


@pytest.mark.parametrize(("sampler", "evaluations"), [("nsga2", 1), ("nsga2", 8), ("tpe", 3), ("random", 5)])
def test_a_study_that_stops_inside_evaluations_makes_the_trials_of_one_that_never_stopped(
    tmp_path: Path, sampler: str, evaluations: int
) -> None:
    # NSGA-II enters its third generation after twenty trials, TPE leaves its random start after ten.
    how = {"settings": settings_for(sampler, trials=23, max_flops=600_000), "first": derived("a", "b")}
    whole = run(tmp_path / "whole.log", **how)
    assert run_in_parts(tmp_path / "parts.log", evaluations, **how) == whole
    assert history(tmp_path / "parts.log") == history(tmp_path / "whole.log")


def test_a_gaussian_process_that_stops_inside_evaluations_proposes_what_it_would_have(tmp_path: Path) -> None:
    # It takes over after ten trials.
    how = {"settings": settings_for("gp", trials=11, max_flops=80_000), "space": TINY}
    whole = run(tmp_path / "whole.log", **how)
    assert run_in_parts(tmp_path / "parts.log", 5, **how) == whole
    assert history(tmp_path / "parts.log") == history(tmp_path / "whole.log")
    assert len(history(tmp_path / "whole.log")) > 11


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_journal_cut_off_anywhere_after_its_first_lines_leads_to_the_same_study(tmp_path: Path, sampler: str) -> None:
    settings = settings_for(sampler, trials=16, max_flops=600_000)
    whole = run(tmp_path / "whole.log", settings)
    content = (tmp_path / "whole.log").read_bytes()
    for part in (0.05, 0.62, 0.997):
        cut = tmp_path / f"cut at {part}.log"
        cut.write_bytes(content[: int(len(content) * part)])
        assert run(cut, settings) == whole
        assert history(cut) == history(tmp_path / "whole.log")


def test_a_study_killed_by_the_system_makes_the_trials_of_one_that_never_stopped(tmp_path: Path) -> None:
    settings = settings_for("nsga2", trials=30, max_flops=600_000)
    whole = run(tmp_path / "whole.log", settings)
    script = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_controller as t
evaluations = 0
def evaluate(genotype):
    global evaluations
    evaluations += 1
    if evaluations == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.score(genotype)
t.run(Path(sys.argv[2]), t.settings_for("nsga2", trials=30, max_flops=600_000), evaluate=evaluate)
"""
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "killed.log")]
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(history(tmp_path / "killed.log")) < len(history(tmp_path / "whole.log"))
    assert run(tmp_path / "killed.log", settings) == whole
    assert history(tmp_path / "killed.log") == history(tmp_path / "whole.log")


@pytest.mark.filterwarnings("ignore:The value of `grace_period` might be too small")
def test_a_lock_left_behind_by_a_kill_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.search.journal.LOCK_SECONDS", 1)
    run(tmp_path / "journal.log", settings_for("random", trials=3))
    (tmp_path / "journal.log.lock").touch()
    assert len(run(tmp_path / "journal.log", settings_for("random", trials=4))) == 4


def test_a_finished_study_evaluates_nothing_again(tmp_path: Path) -> None:
    settings = settings_for("nsga2")
    candidates = run(tmp_path / "journal.log", settings)
    assert run(tmp_path / "journal.log", settings, evaluate=stopping_after(0)) == candidates


def test_a_study_with_a_larger_budget_goes_on_where_it_ended(tmp_path: Path) -> None:
    run(tmp_path / "grown.log", settings_for("nsga2", trials=10))
    grown = run(tmp_path / "grown.log", settings_for("nsga2", trials=30))
    assert grown == run(tmp_path / "whole.log", settings_for("nsga2", trials=30))


def test_another_seed_proposes_others(tmp_path: Path) -> None:
    settings = settings_for("nsga2", trials=5)
    assert run(tmp_path / "1.log", settings, seed=1) != run(tmp_path / "2.log", settings, seed=2)


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_no_architecture_is_evaluated_twice(tmp_path: Path, sampler: str) -> None:
    evaluated: list[str] = []

    def evaluate(genotype: Genotype) -> Score:
        evaluated.append(genotype.key)
        return score(genotype)

    candidates = run(tmp_path / "journal.log", settings_for(sampler, trials=20), space=TINY, evaluate=evaluate)
    assert len(set(evaluated)) == len(evaluated) == len(candidates) == 20
    assert len(history(tmp_path / "journal.log")) > 20


def test_a_repeated_architecture_is_told_its_old_score(tmp_path: Path) -> None:
    run(tmp_path / "journal.log", settings_for("random", trials=30), space=TINY)
    told: dict[str, set[tuple[float, ...]]] = {}
    trials = study_in(tmp_path / "journal.log").get_trials()
    for trial in trials:
        told.setdefault(trial.user_attrs["key"], set()).add(tuple(trial.values))
    assert any(trial.user_attrs["status"] == "scored before" for trial in trials)
    assert all(len(values) == 1 for values in told.values())


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_nothing_over_a_limit_is_evaluated(tmp_path: Path, sampler: str) -> None:
    evaluated: list[Cost] = []

    def evaluate(genotype: Genotype) -> Score:
        evaluated.append(cost(genotype))
        return score(genotype)

    settings = settings_for(sampler, trials=12, max_flops=550_000, max_parameters=5500)
    run(tmp_path / "journal.log", settings, evaluate=evaluate)
    assert all(c.flops <= 550_000 and c.parameters <= 5500 for c in evaluated)
    refused = [t for t in study_in(tmp_path / "journal.log").trials if t.user_attrs["status"] == "refused"]
    assert refused
    assert all(t.state == TrialState.COMPLETE and max(t.constraints.values()) > 0 for t in refused)


def test_a_space_that_holds_too_few_architectures_ends_the_study_with_a_warning(tmp_path: Path) -> None:
    affordable = {g.key for g in TINY.enumerate() if cost(g).flops <= 40_000}
    settings = settings_for("random", trials=len(affordable) + 5, max_flops=40_000)
    candidates = run(tmp_path / "journal.log", settings, space=TINY)
    assert {candidate.genotype.key for candidate in candidates} == affordable
    assert shortfall(candidates, settings) == (
        f"the study scored {len(affordable)} of {settings.trials} architectures: "
        f"{20 * settings.trials} proposals brought no more that are new and within max_flops=40000"
    )


def test_limits_that_nothing_keeps_are_one_line_with_the_cheapest_cost(tmp_path: Path) -> None:
    cheapest = min((cost(genotype) for genotype in TINY.enumerate()), key=lambda c: c.flops)
    with pytest.raises(SpaceError) as raised:
        run(tmp_path / "journal.log", settings_for("random", trials=2, max_flops=10), space=TINY)
    assert str(raised.value) == (
        "space tiny: no architecture was found within max_flops=10; "
        f"the cheapest proposal has {cheapest.flops} FLOPs and {cheapest.parameters} parameters"
    )


def test_the_first_architectures_are_scored_first_under_their_source(tmp_path: Path) -> None:
    first = derived("magnitude", "perturbation")
    candidates = run(tmp_path / "journal.log", settings_for("nsga2", trials=4), first=first)
    assert [(c.source, c.genotype) for c in candidates[:2]] == first
    assert [c.source for c in candidates[2:]] == ["sampler"] * 2


def test_the_first_architectures_are_in_the_first_population(tmp_path: Path) -> None:
    run(tmp_path / "journal.log", settings_for("nsga2", trials=4), first=derived("magnitude"))
    population = NSGAIISampler().get_population(study_in(tmp_path / "journal.log"), 0)
    assert [trial.number for trial in population] == [0, 1, 2, 3]


def test_first_architectures_over_the_limits_are_left_out(tmp_path: Path) -> None:
    first = sorted(derived(*"abcdef"), key=lambda pair: cost(pair[1]).flops)
    settings = settings_for("random", trials=6, max_flops=cost(first[2][1]).flops)
    candidates = run(tmp_path / "journal.log", settings, first=first)
    assert [c.source for c in candidates] == [source for source, _ in first[:3]] + ["sampler"] * 3


def test_every_trial_is_reported_once_also_those_of_an_earlier_run(tmp_path: Path) -> None:
    def reports(trials: int) -> list[tuple[int, Candidate | None]]:
        seen: list[tuple[int, Candidate | None]] = []
        run_study(
            TINY,
            evaluate=score,
            cost=cost,
            settings=settings_for("random", trials=trials),
            first=(),
            journal=tmp_path / "journal.log",
            seed=1,
            on_trial=lambda number, candidate: seen.append((number, candidate)),
        )
        return seen

    short = reports(20)
    long = reports(25)
    assert long[: len(short)] == short
    assert [number for number, _ in long] == list(range(len(long)))
    assert len([candidate for _, candidate in long if candidate]) == 25


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sampler": "tpe"}, "sampler is nsga2 there and tpe here"),
        ({"population": 20}, "population is 10 there and 20 here"),
        ({"max_flops": 10**9}, "max_flops is None there and 1000000000 here"),
        ({"objective": "reward"}, "objective is faulty there and reward here"),
    ],
)
def test_a_study_of_other_settings_is_refused(tmp_path: Path, change: dict[str, object], text: str) -> None:
    run(tmp_path / "journal.log", settings_for("nsga2", trials=2))
    other = ControllerSettings.model_validate({"sampler": "nsga2", "trials": 2, **change})
    with pytest.raises(RunError) as raised:
        run(tmp_path / "journal.log", other)
    expected = f"{tmp_path / 'journal.log'}: belongs to another study ({text}); choose another run folder"
    assert str(raised.value) == expected


def test_a_study_of_another_space_seed_or_start_is_refused(tmp_path: Path) -> None:
    settings = settings_for("nsga2", trials=2)
    run(tmp_path / "journal.log", settings)
    with pytest.raises(RunError, match=r"space is \w+ there"):
        run(tmp_path / "journal.log", settings, space=TINY)
    with pytest.raises(RunError, match="seed is 1 there and 2 here"):
        run(tmp_path / "journal.log", settings, seed=2)
    with pytest.raises(RunError, match="first architectures is"):
        run(tmp_path / "journal.log", settings, first=derived("magnitude"))


@pytest.mark.parametrize("content", ["no journal\n", '{"op_code": 99, "worker_id": ""}\n', "[1]\n[2]\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    file = tmp_path / "journal.log"
    file.write_text(content + content)
    with pytest.raises(RunError) as raised:
        run(file, settings_for("random", trials=1))
    assert "is not a readable study journal" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert file.read_text() == content + content


def test_a_study_of_someone_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    optuna.create_study(storage=JournalStorage(JournalFileBackend(str(file))), study_name="theirs")
    content = file.read_bytes()
    with pytest.raises(RunError, match="is not a study of ftnas"):
        run(file, settings_for("random", trials=1))
    assert file.read_bytes() == content


def test_a_journal_holds_nothing_of_a_trial_before_its_commit(tmp_path: Path) -> None:
    journal = TrialJournal(tmp_path / "journal.log")
    journal.append_logs([{"op_code": 0}])
    assert list(journal.read_logs(0)) == [{"op_code": 0}]
    assert (tmp_path / "journal.log").read_bytes() == b""
    journal.commit()
    assert json.loads((tmp_path / "journal.log").read_text().splitlines()[0]) == {"op_code": 0}


def test_a_study_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    verbosity = optuna.logging.get_verbosity()
    run(tmp_path / "journal.log", settings_for("nsga2", trials=12))
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert optuna.logging.get_verbosity() == verbosity


def test_the_reward_weighs_clean_and_faulty_accuracy(tmp_path: Path) -> None:
    settings = settings_for("random", trials=3, objective="reward", faulty_share=0.25)
    candidates = run(tmp_path / "journal.log", settings)
    told = [trial.values[0] for trial in study_in(tmp_path / "journal.log").trials]
    assert told == [0.75 * c.score.clean + 0.25 * c.score.faulty for c in candidates]


@pytest.mark.parametrize(("trials", "population"), [(1, 10), (100, 10), (200, 20), (5000, 50)])
def test_the_population_is_scaled_to_the_budget(trials: int, population: int) -> None:
    assert ControllerSettings(trials=trials).population_size == population


def test_an_edge_without_numbers_has_the_first_quantisation_whatever_was_chosen() -> None:
    weighted, skip = DIGITS.quantization[4], DIGITS.quantization[3]
    cell = tuple((Edge("skip_connect", 0, skip), Edge("conv_1x1", 1, weighted)) for _ in range(3))
    first = DIGITS.quantization[0]
    changed = settled(DIGITS, Genotype(cell, cell))
    assert changed.normal[0] == (Edge("skip_connect", 0, first), Edge("conv_1x1", 1, weighted))
    # At stride 2 a skip has weights.
    assert changed.reduction[0] == (Edge("skip_connect", 0, skip), Edge("conv_1x1", 1, weighted))


def test_a_settled_genotype_has_the_key_of_its_canonical_form() -> None:
    for number in range(50):
        genotype = DIGITS.sample(keyed_generator("settled", number))
        assert settled(DIGITS, genotype).key == DIGITS.canonical(genotype).key


def test_a_candidate_survives_json() -> None:
    genotype = DIGITS.sample(keyed_generator("json"))
    candidate = Candidate(genotype, score(genotype), cost(genotype), 7, "sampler")
    row = json.loads(json.dumps(candidate.to_dict()))
    assert Candidate.from_dict(row) == candidate
    assert row["key"] == genotype.key
    assert row["flops"] == 2 * row["macs"]


def test_an_incomplete_candidate_is_refused_by_its_key() -> None:
    with pytest.raises(RunError, match="candidate abc: KeyError"):
        Candidate.from_dict({"key": "abc"})


def test_the_standard_error_is_that_of_the_mean_over_chips() -> None:
    assert Score(1.0, 0.5, (0.4, 0.6)).standard_error == pytest.approx(0.1)
    assert math.isnan(Score(1.0, 0.5, (0.5,)).standard_error)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_a_score_outside_zero_to_one_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"an accuracy must be in \[0, 1\]"):
        Score(0.5, 0.5, (0.5, wrong))


def test_a_limit_itself_is_allowed_and_one_more_is_not() -> None:
    limits = Limits(max_flops=200, max_parameters=30)
    assert not limits.violated_by(Cost(100, 30, 0))
    assert limits.violated_by(Cost(101, 30, 0))
    assert limits.violated_by(Cost(100, 31, 0))
    assert not Limits().violated_by(Cost(10**15, 10**15, 0))


def test_a_space_with_a_decision_of_one_option_can_be_searched(tmp_path: Path) -> None:
    assert [decision.options for decision in NARROW.decisions()] == [2, 2, 1]
    assert len(run(tmp_path / "journal.log", settings_for("tpe", trials=4), space=NARROW)) == 4
