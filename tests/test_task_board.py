"""The task board on each storage: a task is claimed once and ends once, and what is not ours is refused."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_support import EXPERIMENT, board_at, score, work
from optuna.storages import InMemoryStorage

from ftnas.errors import RunError
from ftnas.search.places import shown
from ftnas.search.storages import UnreadableBoard, open_storage
from ftnas.search.task_journal import TaskJournal
from ftnas.search.tasks import BoardLost, TaskBoard
from ftnas.search.work import Experiment, State, Work

KINDS = ("memory", "journal", "sqlite")


def place_in(folder: Path, kind: str) -> Path | str:
    return folder / "tasks.log" if kind != "sqlite" else f"sqlite:///{folder / 'tasks.db'}"


@pytest.fixture(params=KINDS)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> TaskBoard:
    storage = InMemoryStorage() if request.param == "memory" else None
    return TaskBoard.open(place_in(tmp_path, request.param), EXPERIMENT, storage)


def test_work_comes_back_from_the_board_as_it_was_put_up(board: TaskBoard) -> None:
    for number in range(3):
        board.post(work(number))
    assert [task.work() for task in board.tasks(State.WAITING)] == [work(number) for number in range(3)]


def test_a_task_is_claimed_once_and_ends_once(board: TaskBoard) -> None:
    board.post(work(0))
    [task] = board.tasks()
    assert [board.claim(task, name) for name in "ab"] == [True, False]
    assert board.finish(task, score(work(0)))
    assert not board.finish(task, score(work(0)))
    assert not board.end(task, "too late")
    [ended] = board.tasks()
    assert (ended.state, ended.worker, ended.score()) == (State.SCORED, "a", score(work(0)))


def test_a_score_comes_too_late_for_a_task_that_was_given_up(board: TaskBoard) -> None:
    board.post(work(0))
    [task] = board.tasks()
    assert board.claim(task, "a")
    assert board.end(task, "its worker died")
    assert not board.finish(task, score(work(0)))
    assert [task.state for task in board.tasks()] == [State.ENDED]


def test_the_score_of_other_work_is_no_score(board: TaskBoard) -> None:
    board.post(work(0))
    [task] = board.tasks()
    other = Work.on(work(0).genotype, range(2, 4))
    board.claim(task, "a")
    assert board.finish(type(task)(task.identity, other.name, task.state, "a", {}), score(other))
    assert board.tasks()[0].score() is None


def test_remarks_are_kept_by_key(board: TaskBoard) -> None:
    board.write("closed", False)
    board.write("closed", True)
    board.write("worker a", {"beat": 3})
    remarks = board.remarks()
    assert (remarks["closed"], remarks["worker a"]) == (True, {"beat": 3})


CLAIMING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from board_support import board_at
place, name = sys.argv[2:]
board = board_at(place if "://" in place else Path(place))
tasks = board.tasks()
print("ready", flush=True)
sys.stdin.readline()
print(*[task.identity for task in tasks if board.claim(task, name)], flush=True)
"""


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("journal", marks=pytest.mark.slow)])
def test_of_two_processes_that_claim_the_same_tasks_each_task_has_one(tmp_path: Path, kind: str) -> None:
    place = place_in(tmp_path, kind)
    board = board_at(place)
    for number in range(30):
        board.post(work(number))
    command = [sys.executable, "-c", CLAIMING, str(Path(__file__).parent), str(place)]
    started = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # Both at once, so that they meet at every task.
    replies: list[str] = []
    threads = [threading.Thread(target=lambda p=p: replies.append(p.communicate("go\n")[0])) for p in started]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claimed = [int(number) for reply in replies for number in reply.split()]
    assert sorted(claimed) == [task.identity for task in board.tasks()]
    assert all(task.worker in ("a", "b") for task in board.tasks())


def test_a_board_that_its_storage_has_forgotten_is_told_apart_from_one_of_the_same_number() -> None:
    storage = InMemoryStorage()
    board = TaskBoard.open("grpc://nowhere:1", EXPERIMENT, storage)
    storage.delete_study(storage.get_study_id_from_name(EXPERIMENT.board))
    with pytest.raises(BoardLost):
        board.tasks()


def test_a_board_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.log"
    board_at(path)
    other = Experiment(EXPERIMENT.title, EXPERIMENT.recipe, "other weights")
    with pytest.raises(RunError, match=r"its tasks are for other shared weights \(supernet ba98.*, here other weights"):
        TaskBoard.open(path, other)


def test_a_board_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tasks.log"
    board_at(path)
    monkeypatch.setattr("ftnas.search.tasks.__version__", "99.0")
    with pytest.raises(RunError, match=r"its tasks are of ftnas \S+, and this is ftnas 99.0; workers and search need"):
        board_at(path)


def test_a_file_with_the_tasks_of_another_experiment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.log"
    board_at(path)
    with pytest.raises(RunError, match=r"holds the tasks of another experiment \(ftnas test 0123456789ab, not ftnas b"):
        TaskBoard.open(path, Experiment("b", "x", "y"))


def test_boards_of_several_experiments_share_a_database(tmp_path: Path) -> None:
    place = place_in(tmp_path, "sqlite")
    other = TaskBoard.open(place, Experiment("b", "x", "y"))
    board = board_at(place)
    board.post(work(0))
    assert (len(board.tasks()), len(other.tasks())) == (1, 0)


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_a_full_disk_cut_short_is_removed_by_who_writes_next(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tasks.log"
    board = board_at(path)
    board.post(work(0))
    board.post(work(1))
    path.write_bytes(path.read_bytes()[:-cut])
    again = board_at(path)
    again.post(work(2))
    assert [task.work() for task in again.tasks()] == [work(0), work(2)]
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.log"
    board_at(path).post(work(0))
    path.write_bytes(path.read_bytes().replace(b'"op_code"', b'"op_c', 2))
    with pytest.raises(UnreadableBoard, match="is not a readable task board") as raised:
        board_at(path)
    assert "\n" not in str(raised.value)


def test_the_end_of_the_last_whole_line_is_found_however_long_the_next_is(tmp_path: Path) -> None:
    path = tmp_path / "tasks.log"
    for before, after in itertools.product((b"", b"{}\n", b"{}\n" * 9), (b"", b"x", b"x" * 5000)):
        path.write_bytes(before + after)
        TaskJournal(path).append_logs([{"a": 1}])
        assert path.read_bytes() == before + b'{"a":1}\n'


def urls() -> Iterator[tuple[str, str]]:
    yield "postgresql://me:secret@host/db", "postgresql://me:***@host/db"
    yield "mysql+pymysql://me:se@cret@host:1/db", "mysql+pymysql://me:***@host:1/db"
    yield "postgresql://me@host/db", "postgresql://me@host/db"
    yield "grpc://host:13000", "grpc://host:13000"
    yield "sqlite:////tmp/a.db", "sqlite:////tmp/a.db"


@pytest.mark.parametrize(("url", "printed"), list(urls()))
def test_a_password_is_never_printed(url: str, printed: str) -> None:
    assert shown(url) == printed


def test_a_task_that_is_not_of_a_search_is_refused(tmp_path: Path) -> None:
    for wrong in ({}, {"chips": [0], "genotype": {}, "name": "a"}, {"chips": [2, 1], "genotype": {}, "name": "a"}):
        with pytest.raises(RunError, match="a task is not of a search of ftnas"):
            Work.from_dict(wrong)


def test_two_processes_at_once_make_one_database(tmp_path: Path) -> None:
    place = place_in(tmp_path, "sqlite")
    assert isinstance(place, str)
    open_storage(place)
    assert board_at(place).tasks() == []
