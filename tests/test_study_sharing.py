"""A study whose candidates several score at once: the same proposals, whoever is quick, stops, or has a record."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import postgresql
import pytest
from board_support import begun, board_at, start_worker, wait_until
from board_support import score as board_score
from test_controller import Stopped, history, run, settings_for, stopping_after, study_in
from test_controller import score as known_score

from ftnas.errors import RunError
from ftnas.pipeline.scoring_workers import has_ended
from ftnas.search.candidates import Candidate, Score
from ftnas.search.controller import run_study
from ftnas.search.dispatch import Dispatcher
from ftnas.search.order import read_order
from ftnas.search.storages import serving
from ftnas.search.work import State, Work
from ftnas.space import Genotype, load_space

from test_controller import DIGITS, TINY, cost  # isort: skip

SAMPLERS = ("nsga2", "random", "tpe")
SLOW = pytest.mark.slow


class Others:
    """Workers of whom it is drawn by lot who is ready next, until the score that is waited for is there."""

    def __init__(self, workers: int, luck: int) -> None:
        self.workers = workers
        self.most = 0
        self.scored: list[str] = []
        self._luck = random.Random(luck)
        self._waiting: list[Genotype] = []
        self._scores: dict[str, Score] = {}

    def want(self, genotype: Genotype) -> None:
        self._waiting.append(genotype)
        self.most = max(self.most, len(self._waiting))

    def score(self, genotype: Genotype) -> Score:
        if genotype not in self._waiting and genotype.key not in self._scores:
            raise AssertionError("nobody was asked to score this")
        while genotype.key not in self._scores:
            done = self._waiting.pop(self._luck.randrange(min(self.workers, len(self._waiting))))
            self.scored.append(done.key)
            self._scores[done.key] = known_score(done)
        return self._scores[genotype.key]


def shared(
    journal: Path, others: Others | OnBoard, *, evaluate: Callable[[Genotype], Score] | None = None, **how: Any
) -> Any:
    known: dict[str, Any] = {"space": DIGITS, "first": (), "seed": 1, "on_trial": lambda number, candidate: None}
    return run_study(**(known | how), evaluate=evaluate or others.score, cost=cost, journal=journal, sharing=others)


@pytest.mark.parametrize("sampler", ["nsga2", "random"])
@pytest.mark.parametrize("workers", [2, 7])
def test_the_trials_are_those_of_one_worker(tmp_path: Path, sampler: str, workers: int) -> None:
    settings = settings_for(sampler, trials=23, max_flops=600_000)
    alone = run(tmp_path / "alone.log", settings)
    others = Others(workers, luck=workers)
    assert shared(tmp_path / "shared.log", others, settings=settings) == alone
    assert history(tmp_path / "shared.log") == history(tmp_path / "alone.log")
    assert len(set(others.scored)) == len(others.scored) == 23
    assert others.most > 5  # so that as many could be at work


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_a_number_in_flight_the_trials_do_not_depend_on_the_workers(tmp_path: Path, sampler: str) -> None:
    settings = settings_for(sampler, trials=25, in_flight=6)
    found = [shared(tmp_path / f"{luck}.log", Others(1 + luck, luck), settings=settings) for luck in range(3)]
    assert found[0] == found[1] == found[2]
    assert run(tmp_path / "alone.log", settings) == found[0]


def test_with_a_number_in_flight_so_many_wait_and_no_more(tmp_path: Path) -> None:
    others = Others(2, luck=0)
    shared(tmp_path / "journal.log", others, settings=settings_for("nsga2", trials=25, in_flight=13))
    assert others.most == 13


def test_a_sampler_that_learns_from_every_trial_has_two_in_flight_for_each_worker(tmp_path: Path) -> None:
    others = Others(3, luck=0)
    shared(tmp_path / "journal.log", others, settings=settings_for("tpe", trials=20))
    assert others.most == 6


def test_an_architecture_proposed_again_while_it_waits_is_scored_once(tmp_path: Path) -> None:
    others = Others(4, luck=1)
    found = shared(
        tmp_path / "journal.log", others, space=TINY, settings=settings_for("random", trials=20, in_flight=20)
    )
    assert sorted(others.scored) == sorted(candidate.genotype.key for candidate in found)
    assert any(trial.user_attrs["status"] == "scored before" for trial in study_in(tmp_path / "journal.log").trials)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("evaluations", [4])
def test_a_shared_study_that_is_stopped_goes_on_to_the_same_trials(
    tmp_path: Path, sampler: str, evaluations: int
) -> None:
    how = {"settings": settings_for(sampler, trials=23, max_flops=600_000, in_flight=4)}
    whole = shared(tmp_path / "whole.log", Others(2, luck=0), **how)
    found: list[Candidate] | None = None
    while found is None:
        try:
            found = shared(tmp_path / "parts.log", Others(2, luck=1), evaluate=stopping_after(evaluations), **how)
        except Stopped:
            continue
    assert found == whole
    assert history(tmp_path / "parts.log") == history(tmp_path / "whole.log")


def test_what_was_being_scored_when_a_shared_study_was_stopped_is_wanted_again(tmp_path: Path) -> None:
    settings = settings_for("nsga2", trials=20)
    first, second = Others(2, luck=0), Others(2, luck=0)
    with pytest.raises(Stopped):
        shared(tmp_path / "journal.log", first, evaluate=stopping_after(3), settings=settings)
    shared(tmp_path / "journal.log", second, settings=settings)
    assert len(second.scored) == 17
    # The ten of the first generation, without the three that had ended.
    assert first._waiting[3:] == [genotype for genotype in first._waiting if genotype.key in second.scored]


def test_a_study_that_was_shared_is_finished_alone_with_the_same_trials(tmp_path: Path) -> None:
    settings = settings_for("nsga2", trials=20)
    with pytest.raises(Stopped):
        shared(tmp_path / "journal.log", Others(2, luck=0), evaluate=stopping_after(3), settings=settings)
    assert run(tmp_path / "journal.log", settings) == run(tmp_path / "alone.log", settings)
    assert history(tmp_path / "journal.log") == history(tmp_path / "alone.log")


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_a_recorded_order_is_proposed_again_by_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    settings = settings_for("tpe", trials=15, max_flops=450_000)
    recorded = shared(tmp_path / "a" / "journal.log", Others(3, luck=4), settings=settings)
    order = read_order(tmp_path / "a" / "order.json", DIGITS)
    assert len(order) == len(history(tmp_path / "a" / "journal.log")) > 15  # refused ones included
    path = tmp_path / "b" / "journal.log"
    if workers:
        again = shared(path, Others(workers, luck=0), settings=settings, seed=99, replay=order)
    else:
        again = run_study(DIGITS, evaluate=known_score, cost=cost, settings=settings, first=(), journal=path, seed=99,
                          on_trial=lambda number, candidate: None, replay=order)  # fmt: skip
    assert again == recorded
    assert (tmp_path / "b" / "order.json").read_bytes() == (tmp_path / "a" / "order.json").read_bytes()


def test_a_study_with_a_replay_goes_on_only_with_it(tmp_path: Path) -> None:
    settings = settings_for("random", trials=4)
    run(tmp_path / "a" / "journal.log", settings)
    order = read_order(tmp_path / "a" / "order.json", DIGITS)
    shared(tmp_path / "b" / "journal.log", Others(1, luck=0), settings=settings, replay=order)
    with pytest.raises(RunError, match=r"replay is .* there and None here"):
        run(tmp_path / "b" / "journal.log", settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "a list of proposals is needed, found dict"),
        ("[1]", "proposal 0 is not a mapping of source and choices"),
        ('[{"source": "sampler", "choices": {"normal.2.0.source": 0}}]', "proposal 0 is of another space than digits"),
    ],
)
def test_a_file_that_is_no_order_of_this_space_is_refused(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "order.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=words):
        read_order(file, DIGITS)


def test_a_choice_that_the_space_does_not_have_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "journal.log", settings_for("random", trials=2))
    file = tmp_path / "order.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('.operator": 1', '.operator": 99').replace('.operator": 2', '.operator": 99'))
    with pytest.raises(RunError, match=r"proposal \d: \S+operator is 99; allowed in space digits is 0 to 7"):
        read_order(file, load_space("digits"))


class OnBoard:
    """Workers who are processes, behind a board."""

    workers = 2

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def want(self, genotype: Genotype) -> None:
        self._dispatcher.want([Work.on(genotype, range(2))])

    def score(self, genotype: Genotype) -> Score:
        return self._dispatcher.score(Work.on(genotype, range(2)))


@contextmanager
def place_of(kind: str, folder: Path) -> Iterator[Path | str]:
    """Yield where a board of this kind can be made."""
    if kind == "postgresql":
        with postgresql.server() as url:
            yield url
    elif kind == "grpc":
        port = free_port()
        with serving("127.0.0.1", port):
            yield f"grpc://127.0.0.1:{port}"
    else:
        yield folder / "tasks.log" if kind == "journal" else f"sqlite:///{folder / 'tasks.db'}"


@pytest.mark.parametrize("kind", ["postgresql", *(pytest.param(k, marks=SLOW) for k in ("journal", "sqlite", "grpc"))])
def test_two_processes_score_what_one_would_and_one_of_them_killed_changes_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By signs of life in one place, by the process in the others, which takes no time.
    monkeypatch.setattr("ftnas.search.dispatch.DEAD_SECONDS", 8.0 if kind == "postgresql" else 1000.0)
    monkeypatch.setattr("ftnas.search.dispatch.BEAT_SECONDS", 0.2)
    settings = settings_for("nsga2", trials=14)
    expected = run(tmp_path / "alone.log", settings, evaluate=lambda g: board_score(Work.on(g, range(2))))
    with place_of(kind, tmp_path) as place:
        board = board_at(place)
        dispatcher = Dispatcher(board, gone=has_ended if kind != "postgresql" else lambda about: False)
        # One is so slow that it is in the middle of a score when it is killed.
        processes = {name: start_worker(place, name, seconds=seconds) for name, seconds in (("a", 2.0), ("b", 0.02))}
        try:
            wait_until(lambda: {f"worker {name}" for name in processes} <= set(board.remarks()))
            sharing = OnBoard(dispatcher)

            def kill_one_in_the_middle() -> None:
                if any(task.worker == "a" for task in board.tasks(State.RUNNING)):
                    processes["a"].kill()
                    processes["a"].wait()

            dispatcher.between = kill_one_in_the_middle
            found = shared(tmp_path / "shared.log", sharing, settings=settings)
            dispatcher.close()
            assert processes["b"].wait(30) == 0
            assert processes["a"].wait(30) == -signal.SIGKILL
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
        names = {name: begun(process) for name, process in processes.items()}
        tasks = board.tasks()
        board.close()
    assert found == expected
    assert history(tmp_path / "shared.log") == history(tmp_path / "alone.log")
    assert sorted(names["b"]) == sorted(Work.on(c.genotype, range(2)).name for c in expected)
    assert len(names["a"]) == 1
    assert [task.content["returned"] for task in tasks if task.state is State.ENDED] == ["its worker died"]
    assert len([task for task in tasks if task.state is State.SCORED]) == len(expected)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
