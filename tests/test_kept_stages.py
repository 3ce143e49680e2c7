"""Stages that are no training, study or campaign: what a kill leaves of them is not done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from quick_runs import quick_run, results

from ftnas.pipeline.answers import Answers
from ftnas.pipeline.config import load_config
from ftnas.pipeline.experiment_folder import MEASURED
from ftnas.pipeline.experiments import load_experiment, train_and_measure
from ftnas.pipeline.hardening_experiment import load_hardening_experiment, run_hardening_experiment
from ftnas.pipeline.run import search

BEFORE_THE_KILL = 2
# What is deleted of a finished run, so that the stage of the first file is done again.
STAGES = {
    "leaders": ("study/leaders.json", "warnings.json"),
    "ranking": ("ranking.json", "warnings.json"),
    "vulnerability": ("winner/vulnerability.json", "warnings.json"),
}
NET = {"net": "resnet20", "width": 0.25, "data": {"train_images": 100, "test_images": 100}, "training": {"epochs": 1}}


class Killed(BaseException):
    """Stands for kill -9: nothing that is ours catches it."""


class Counter:
    """Counts which units of stages are computed, and kills before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.computed: list[str] = []
        self.kill_after: int | None = None
        of = Answers.of

        def counted(answers: Answers, unit: str, compute: Callable[[], Any]) -> Any:
            def computing() -> Any:
                if len(self.computed) == self.kill_after:
                    raise Killed
                self.computed.append(unit)
                return compute()

            return of(answers, unit, computing)

        monkeypatch.setattr(Answers, "of", counted)
        monkeypatch.setattr("ftnas.pipeline.answers.SECONDS_BETWEEN_SAVES", 0.0)

    def interrupted(self, work: Callable[[], object]) -> list[str]:
        """Do ``work``, killed once on the way; return the units that were computed, in order."""
        self.computed, self.kill_after = [], BEFORE_THE_KILL
        with pytest.raises(Killed):
            work()
        self.kill_after = None
        work()
        return self.computed


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_of_a_search_goes_on_after_a_kill(stage: str, finished: Path, tmp_path: Path, counter: Counter) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in STAGES[stage]:
        (run / name).unlink()
    computed = counter.interrupted(lambda: search(load_config(run / "config.yaml"), run))
    assert len(computed) == len(set(computed)) > BEFORE_THE_KILL
    assert results(run) == results(finished)
    assert not list(run.rglob("*.jsonl")) or {path.name for path in run.rglob("*.jsonl")} <= {"metrics.jsonl"}


@pytest.mark.slow
def test_leaders_scored_by_workers_go_on_after_a_kill(finished: Path, tmp_path: Path, counter: Counter) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in STAGES["leaders"]:
        (run / name).unlink()
    config = load_config(run / "config.yaml").model_copy(update={"workers": 2})
    computed = counter.interrupted(lambda: search(config, run))
    assert len(computed) == len(set(computed)) > BEFORE_THE_KILL
    assert (run / "study" / "leaders.json").read_bytes() == (finished / "study" / "leaders.json").read_bytes()


def test_the_measurement_of_an_experiment_goes_on_after_a_kill(tmp_path: Path, counter: Counter) -> None:
    file = tmp_path / "experiment.yaml"
    content = {"name": "kept", "base": NET, "axes": {"way": {"plain": {}}}, "against": "plain", "seeds": [0, 1],
               "chips": 3, "faults": ["weights.bit_flip:1e-2"], "sharpness_images": 10}  # fmt: skip
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    config = load_experiment(file)
    name, training = next(iter(config.trainings().items()))
    train_and_measure(training, tmp_path / "whole", config, lambda: None)
    computed = counter.interrupted(lambda: train_and_measure(training, tmp_path / name, config, lambda: None))
    assert computed == ["chip 0", "chip 1", "chip 2"]
    assert (tmp_path / name / MEASURED).read_bytes() == (tmp_path / "whole" / MEASURED).read_bytes()


def test_the_measurements_of_an_experiment_of_hardening_go_on_after_a_kill(tmp_path: Path, counter: Counter) -> None:
    file = tmp_path / "hardening.yaml"
    content = {"name": "kept", "family": "hardening", "nets": {"net": NET}, "seeds": [0], "chips": 3, "test_images": 40,
               "ways": {"guard": {"method": "guard", "images": 20}}, "faults": ["features.bit_flip:1e-2"]}  # fmt: skip
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    config = load_hardening_experiment(file)
    run_hardening_experiment(config, tmp_path / "whole")
    computed = counter.interrupted(lambda: run_hardening_experiment(config, tmp_path / "killed"))
    assert computed == 2 * ["chip 0", "chip 1", "chip 2"]  # without protection and with it
    name = "results.json"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "killed").rglob("*chips*.jsonl"))
