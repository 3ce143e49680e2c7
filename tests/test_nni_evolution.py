"""NNI's regularised evolution as a controller of the same study."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ftnas.cost import Cost, genotype_cost
from ftnas.errors import FtnasError, RunError, SpaceError
from ftnas.runtime import key_seed, keyed_generator
from ftnas.search.candidates import Candidate, Score
from ftnas.search.controller import ControllerSettings, run_study, shortfall
from ftnas.search.ledger import settled
from ftnas.space import Genotype, SearchSpace, load_space

pytest.importorskip("nni")

TINY = load_space("tiny")
DIGITS = load_space("digits")


def cost(genotype: Genotype) -> Cost:
    space = DIGITS if genotype.reduction else TINY
    return genotype_cost(genotype, space, space.final, image_shape=(1, 8, 8))


def score(genotype: Genotype) -> Score:
    luck = key_seed(genotype.key) % 1000 / 1000
    accuracy = min(1.0, 0.2 + cost(genotype).flops / 2e6 + 0.3 * luck)
    return Score(accuracy, 0.8 * accuracy, (0.7 * accuracy, 0.9 * accuracy))


def settings_for(*, trials: int = 40, **more: object) -> ControllerSettings:
    return ControllerSettings.model_validate({"controller": "nni-evolution", "trials": trials, **more})


def run(
    folder: Path,
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
        journal=folder / "journal.log",
        seed=seed,
        on_trial=lambda number, candidate: None,
    )


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


@pytest.mark.parametrize("evaluations", [1, 7])
def test_a_study_that_stops_inside_evaluations_makes_the_proposals_of_one_that_never_stopped(
    tmp_path: Path, evaluations: int
) -> None:
    settings, first = settings_for(max_flops=600_000), derived("magnitude", "perturbation")
    whole = run(tmp_path / "whole", settings, first=first)
    while True:
        try:
            parts = run(tmp_path / "parts", settings, first=first, evaluate=stopping_after(evaluations))
            break
        except Stopped:
            continue
    assert parts == whole
    assert _proposals(tmp_path / "parts") == _proposals(tmp_path / "whole")


def _proposals(folder: Path) -> str:
    return (folder / "proposals.jsonl").read_text()


def test_a_file_cut_off_in_a_line_leads_to_the_same_study(tmp_path: Path) -> None:
    settings = settings_for()
    whole = run(tmp_path, settings)
    content = _proposals(tmp_path)
    (tmp_path / "proposals.jsonl").write_text(content[: int(len(content) * 0.6)])
    assert run(tmp_path, settings) == whole
    assert _proposals(tmp_path) == content


def test_a_finished_study_evaluates_nothing_again(tmp_path: Path) -> None:
    candidates = run(tmp_path, settings_for())
    assert run(tmp_path, settings_for(), evaluate=stopping_after(0)) == candidates


def test_the_first_architectures_are_scored_first_and_bred_from(tmp_path: Path) -> None:
    best = derived("magnitude")[0][1]

    def evaluate(genotype: Genotype) -> Score:
        value = 1.0 if genotype == best else 0.1
        return Score(value, value, (value, value))

    settings = settings_for(trials=16, population=2)
    candidates = run(tmp_path, settings, first=[("magnitude", best)], evaluate=evaluate)
    assert (candidates[0].source, candidates[0].genotype) == ("magnitude", best)
    differences = [_differences(best, candidate.genotype) for candidate in candidates]
    # The second is drawn at random; the third is the first child of the better of the two.
    assert differences[2] < differences[1]


def _differences(a: Genotype, b: Genotype) -> int:
    mine, theirs = DIGITS.choices(a), DIGITS.choices(b)
    return sum(mine[name] != theirs[name] for name in mine)


def test_no_architecture_is_evaluated_twice_and_all_are_within_the_limits(tmp_path: Path) -> None:
    evaluated: list[Genotype] = []

    def evaluate(genotype: Genotype) -> Score:
        evaluated.append(genotype)
        return score(genotype)

    candidates = run(tmp_path, settings_for(trials=20, max_flops=80_000), space=TINY, evaluate=evaluate)
    assert len({genotype.key for genotype in evaluated}) == len(evaluated) == len(candidates)
    assert all(cost(genotype).flops <= 80_000 for genotype in evaluated)


def test_evolution_beats_its_own_random_start(tmp_path: Path) -> None:
    candidates = run(tmp_path, settings_for(trials=150, max_flops=600_000))
    faulty = [candidate.score.faulty for candidate in candidates]
    assert np.mean(faulty[-50:]) > np.mean(faulty[:15]) + 0.02


def test_a_space_that_holds_too_few_architectures_ends_the_study_with_a_warning(tmp_path: Path) -> None:
    settings = settings_for(trials=60)
    candidates = run(tmp_path, settings, space=TINY)
    assert 0 < len(candidates) <= 49
    assert shortfall(candidates, settings) is not None


def test_limits_that_nothing_keeps_are_one_line_with_the_cheapest_cost(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="no architecture was found within max_flops=10; the cheapest"):
        run(tmp_path, settings_for(max_flops=10), space=TINY)


def test_a_study_of_another_seed_is_refused(tmp_path: Path) -> None:
    run(tmp_path, settings_for(trials=2))
    with pytest.raises(RunError) as raised:
        run(tmp_path, settings_for(trials=2), seed=2)
    file = tmp_path / "proposals.jsonl"
    expected = f"{file}: belongs to another study (seed is 1 there and 2 here); choose another run folder"
    assert str(raised.value) == expected


def test_a_file_with_other_proposals_is_refused(tmp_path: Path) -> None:
    run(tmp_path, settings_for(trials=3))
    header, *rows = _proposals(tmp_path).splitlines()
    row = json.loads(rows[1])
    row["choices"]["normal.2.0.operator"] += 1
    lines = [header, rows[0], json.dumps(row), rows[2]]
    (tmp_path / "proposals.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RunError, match=r"proposal 1 is not the one that NNI \d\S* makes"):
        run(tmp_path, settings_for(trials=3))


@pytest.mark.parametrize("content", ["no json\n", "[1]\n", '{"fingerprint": null}\n'])
def test_a_file_that_is_no_study_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    file = tmp_path / "proposals.jsonl"
    file.write_text(content)
    with pytest.raises(RunError, match=r"proposals\.jsonl: "):
        run(tmp_path, settings_for())
    assert file.read_text() == content


def test_a_study_is_silent_and_draws_from_no_global_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    python, numpy = random.getstate(), np.random.get_state()[1].copy()
    run(tmp_path, settings_for(trials=12))
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)


def _run_elsewhere(script: str, *, home: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", script, str(home / "run")],
        env={**os.environ, "PYTHONPATH": path, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_written_but_the_study_and_nothing_printed(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import test_nni_evolution as t
assert "nni.nas" not in sys.modules
Path(sys.argv[1]).mkdir()
t.run(Path(sys.argv[1]), t.settings_for(trials=3))
assert "nni.nas" in sys.modules and "pytorch_lightning" not in sys.modules
"""
    done = _run_elsewhere(script, home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["run/order.json", "run/proposals.jsonl"]


def test_a_missing_nni_is_one_line_that_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ftnas.search.nni_evolution", raising=False)
    monkeypatch.setitem(sys.modules, "nni", None)
    with pytest.raises(FtnasError) as raised:
        run(tmp_path, settings_for())
    assert str(raised.value).startswith("controller nni-evolution needs NNI, which cannot be imported")
    assert str(raised.value).endswith('pip install "ftnas[nni]"')
    assert "\n" not in str(raised.value)
