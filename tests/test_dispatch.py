"""Dispatching: no task is lost, none scored twice while its worker lives, whatever dies and in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from board_support import EXPERIMENT, score, work
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from optuna.storages import InMemoryStorage

from ftnas.errors import RunError
from ftnas.search.beating import BEAT_SECONDS, DEAD_SECONDS, beating
from ftnas.search.candidates import Score
from ftnas.search.dispatch import DEATHS, Dispatcher
from ftnas.search.tasks import WORKER, TaskBoard
from ftnas.search.work import Experiment, State, Task, Work
from ftnas.search.working import Worker
from ftnas.stopping import Stopped


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Hands:
    """A worker that does one step at a time, as a real one does between being interrupted."""

    def __init__(self, board: TaskBoard, name: str) -> None:
        self.board, self.name, self.beats = board, name, 0
        self.task: Task | None = None
        self.awake = True
        self.beat()

    def beat(self) -> None:
        self.beats += 1
        self.board.write(WORKER + self.name, {"beat": self.beats})

    def claim(self) -> None:
        for task in self.board.tasks(State.WAITING):
            if self.board.claim(task, self.name):
                self.task = task
                return

    def finish(self) -> bool:
        task, self.task = self.task, None
        assert task is not None
        return self.board.finish(task, score(task.work()))


def dispatcher_on(storage: InMemoryStorage, clock: Clock, **how: Any) -> Dispatcher:
    return Dispatcher(TaskBoard.open("grpc://test:1", EXPERIMENT, storage), clock=clock, **how)


class Schedules(RuleBasedStateMachine):
    """Workers that come, fall asleep, wake up and die between any two steps; a search that is killed and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.storage, self.clock = InMemoryStorage(), Clock()
        self.board = TaskBoard.open("grpc://test:1", EXPERIMENT, self.storage)
        self.workers: list[Hands] = []
        self.names = 0
        self.wanted: list[Work] = []
        self.accepted: dict[str, int] = {}
        self.deaths = 0

    @initialize()
    def begin(self) -> None:
        self.dispatcher = dispatcher_on(self.storage, self.clock)
        self.the_search_wants_more(2)
        self.a_worker_comes()

    @rule(count=st.integers(1, 3))
    def the_search_wants_more(self, count: int) -> None:
        new = [work(len(self.wanted) + number) for number in range(count)]
        self.wanted += new
        self.dispatcher.want(new)

    @rule()
    def the_search_looks(self) -> None:
        self.look()

    @rule()
    def the_search_is_killed_and_goes_on(self) -> None:
        self.dispatcher = dispatcher_on(self.storage, self.clock)
        self.dispatcher.want(self.wanted)

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def a_worker_comes(self) -> None:
        self.names += 1
        self.workers.append(Hands(self.board, f"w{self.names}"))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 3))
    def a_worker_does_a_step(self, which: int) -> None:
        one = self.workers[which % len(self.workers)]
        if one.task is None:
            one.claim()
        else:
            name = one.task.name
            if one.finish():
                self.accepted[name] = self.accepted.get(name, 0) + 1

    @precondition(lambda self: self.workers and self.deaths < DEATHS - 1)
    @rule(which=st.integers(0, 3))
    def a_worker_dies(self, which: int) -> None:
        busy = [one for one in self.workers if one.task is not None] or self.workers
        self.workers.remove(busy[which % len(busy)])
        self.deaths += 1

    @precondition(lambda self: self.workers and self.deaths < DEATHS - 1)
    @rule(which=st.integers(0, 3))
    def a_worker_sleeps_for_so_long_that_it_is_taken_for_dead(self, which: int) -> None:
        one = self.workers[which % len(self.workers)]
        one.awake = False
        self.pass_time(2 * DEAD_SECONDS)
        one.awake = True
        self.deaths += 1

    @rule(seconds=st.floats(0, BEAT_SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass; who lives gives its signs of life meanwhile."""
        ends = self.clock.now + seconds
        while self.clock.now < ends:
            self.clock.now = min(ends, self.clock.now + BEAT_SECONDS)
            for one in self.workers:
                if one.awake:
                    one.beat()
            self.look()

    def look(self) -> None:
        self.dispatcher.step()

    @invariant()
    def nothing_that_has_its_score_is_scored_again(self) -> None:
        assert all(count == 1 for count in self.accepted.values())

    @invariant()
    def no_two_workers_that_are_awake_hold_the_same_architecture(self) -> None:
        names = [task.name for task in self.board.tasks(State.RUNNING)]
        assert len(set(names)) == len(names)

    def teardown(self) -> None:
        """In the end one worker is enough for all that is wanted."""
        last = Hands(self.board, "last")
        self.workers = [one for one in self.workers if one.task is not None] + [last]
        for _ in range(200):
            self.pass_time(BEAT_SECONDS)
            for one in self.workers:
                if one.task is not None:
                    one.finish()
            last.claim()
            if not self.board.tasks(State.WAITING, State.RUNNING) and last.task is None:
                break
        self.dispatcher.step()
        assert not self.board.tasks(State.WAITING, State.RUNNING), "a task was lost"
        assert [self.dispatcher.score(one) for one in self.wanted] == [score(one) for one in self.wanted]
        super().teardown()


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def storage() -> InMemoryStorage:
    return InMemoryStorage()


@pytest.fixture
def board(storage: InMemoryStorage) -> TaskBoard:
    return TaskBoard.open("grpc://test:1", EXPERIMENT, storage)


def let_pass(clock: Clock, dispatcher: Dispatcher, seconds: float, *living: Hands) -> None:
    ends = clock.now + seconds
    while clock.now < ends:
        clock.now += BEAT_SECONDS
        for one in living:
            one.beat()
        dispatcher.step()


def test_the_task_of_a_dead_worker_goes_to_another(storage: InMemoryStorage, board: TaskBoard) -> None:
    clock = Clock()
    dispatcher = dispatcher_on(storage, clock)
    dispatcher.want([work(0)])
    dead, alive = Hands(board, "dead"), Hands(board, "alive")
    dead.claim()
    let_pass(clock, dispatcher, DEAD_SECONDS - BEAT_SECONDS, alive)
    assert board.tasks(State.WAITING) == []
    let_pass(clock, dispatcher, 3 * BEAT_SECONDS, alive)
    alive.claim()
    assert alive.task is not None
    assert not dead.finish()
    assert alive.finish()
    assert dispatcher.score(work(0)) == score(work(0))


def test_a_slow_worker_that_gives_signs_of_life_keeps_its_task(storage: InMemoryStorage, board: TaskBoard) -> None:
    clock = Clock()
    dispatcher = dispatcher_on(storage, clock)
    dispatcher.want([work(0)])
    slow = Hands(board, "slow")
    slow.claim()
    let_pass(clock, dispatcher, 20 * DEAD_SECONDS, slow)
    assert board.tasks(State.WAITING) == []
    assert slow.finish()


def test_a_worker_that_comes_back_has_time_for_a_sign_of_life(storage: InMemoryStorage, board: TaskBoard) -> None:
    clock = Clock()
    dispatcher = dispatcher_on(storage, clock)
    dispatcher.want([work(0), work(1)])
    back = Hands(board, "back")
    back.claim()
    let_pass(clock, dispatcher, 2 * DEAD_SECONDS)
    assert not back.finish()
    back.claim()  # before it has said that it is back
    dispatcher.step()
    assert back.task is not None
    assert back.finish()


def test_a_worker_whose_process_is_known_to_be_gone_is_not_waited_for(
    storage: InMemoryStorage, board: TaskBoard
) -> None:
    def gone(about: Mapping[str, Any]) -> bool:
        return about.get("process") == 7

    board.write(WORKER + "gone", {"beat": 1, "process": 7})
    board.post(work(0))
    assert board.claim(board.tasks()[0], "gone")
    dispatcher = dispatcher_on(storage, Clock(), gone=gone)
    dispatcher.want([work(0)])
    assert [task.name for task in board.tasks(State.WAITING)] == [work(0).name]


def test_a_task_at_which_three_workers_died_ends_the_search_with_its_name(
    storage: InMemoryStorage, board: TaskBoard
) -> None:
    dispatcher = dispatcher_on(storage, Clock())
    dispatcher.want([work(0)])
    with pytest.raises(RunError, match=f"architecture {work(0).genotype.key}: 3 workers ended while they scored it"):
        for number in range(DEATHS):
            hands = Hands(board, f"w{number}")
            hands.claim()
            assert hands.task is not None
            dispatcher.lives.end(hands.name)
            dispatcher.step()


def test_what_is_broken_off_on_request_counts_as_no_death(storage: InMemoryStorage, board: TaskBoard) -> None:
    dispatcher = dispatcher_on(storage, Clock())
    dispatcher.want([work(0)])
    for number in range(2 * DEATHS):
        hands = Hands(board, f"w{number}")
        hands.claim()
        assert hands.task is not None
        assert board.end(hands.task, "its worker was stopped")
        dispatcher.step()


def test_deaths_under_a_search_that_was_killed_do_not_count(storage: InMemoryStorage, board: TaskBoard) -> None:
    for number in range(2 * DEATHS):
        dispatcher = dispatcher_on(storage, Clock(), gone=lambda about: True)
        dispatcher.want([work(0)])
        Hands(board, f"w{number}").claim()


def test_a_server_that_forgot_everything_is_told_again(storage: InMemoryStorage, board: TaskBoard) -> None:
    dispatcher = dispatcher_on(storage, Clock())
    dispatcher.want([work(0), work(1)])
    first = Hands(board, "w")
    first.claim()
    first.finish()
    dispatcher.step()
    # Another search was quicker to come back, and has the number that was ours.
    storage.delete_study(storage.get_study_id_from_name(EXPERIMENT.board))
    TaskBoard.open("grpc://test:1", Experiment("b", "x", "y"), storage)
    dispatcher._board.open_again = lambda: storage  # type: ignore[method-assign]
    dispatcher.step()
    dispatcher.step()
    again = TaskBoard.open("grpc://test:1", EXPERIMENT, storage)
    assert [task.name for task in again.tasks()] == [work(1).name]


def worker_on(board: TaskBoard, result: Any, **how: Any) -> Worker:
    def scored(one: Work) -> Score:
        if isinstance(result, BaseException):
            raise result
        return score(one)

    return Worker(board, scored, name="w", about={}, **{"wait": 60.0, **how})


def test_a_worker_that_is_stopped_gives_its_task_back(board: TaskBoard) -> None:
    board.post(work(0))
    board.write("search", "1")
    with pytest.raises(Stopped):
        worker_on(board, Stopped(15)).run()
    [task] = board.tasks()
    assert (task.state, task.content["returned"]) == (State.ENDED, "its worker was stopped")
    assert board.remarks()[WORKER + "w"]["left"]


def test_a_worker_in_which_scoring_fails_says_why(board: TaskBoard) -> None:
    board.post(work(0))
    with pytest.raises(ZeroDivisionError):
        worker_on(board, ZeroDivisionError("by nothing")).run()
    [task] = board.tasks()
    assert (task.state, task.content["failed"]) == (State.ENDED, "ZeroDivisionError: by nothing")


def test_a_worker_ends_when_the_board_is_closed(storage: InMemoryStorage, board: TaskBoard) -> None:
    dispatcher = dispatcher_on(storage, Clock())
    dispatcher.want([work(0), work(1)])
    worker = worker_on(board, None, sleep=lambda _: dispatcher.close())
    assert worker.run() == 2


def test_a_worker_ends_when_the_search_is_not_heard_of(board: TaskBoard) -> None:
    clock = Clock()
    board.write("search", "1")

    def pass_time(seconds: float) -> None:
        clock.now += 1

    with pytest.raises(RunError, match="the search has not been heard of for 60 s"):
        worker_on(board, None, clock=clock, sleep=pass_time).run()


def test_signs_of_life_go_on_after_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.search.beating.BEAT_SECONDS", 0.01)
    beats = 0
    third = threading.Event()

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 2:
            raise ValueError("Cannot invoke RPC on closed channel!")
        if beats == 3:
            third.set()

    with beating(beat):
        assert third.wait(30)


def test_a_task_of_another_experiment_is_not_scored(board: TaskBoard) -> None:
    board._storage.create_new_trial(board._study, _foreign())
    with pytest.raises(RunError, match="a task of another experiment is on this board"):
        worker_on(board, None).once()


def _foreign() -> Any:
    from optuna.trial import TrialState, create_trial

    return create_trial(state=TrialState.WAITING, user_attrs={"work": work(0).to_dict(), "board": "another"})
