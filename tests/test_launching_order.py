"""The order in which trials of NNI fetch: none gets what is another's, whichever comes first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from command_line import lacking
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnas.errors import LaunchError
from ftnas.pipeline.launching_server import STOP
from ftnas.pipeline.launching_trial import FETCHED, GIVEN_UP, fetch_in_order


@settings(max_examples=15)
@given(order=st.permutations(range(5)), crashes=st.sets(st.integers(0, 4), max_size=2))
def test_each_trial_gets_what_it_is_listed_under_whichever_comes_first(
    order: list[int], crashes: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, parameters = tmp_path_factory.mktemp("order"), list(range(5))
    got: dict[int, int] = {}

    def run(number: int) -> None:
        time.sleep(order.index(number) * 0.002)
        given = fetch_in_order(folder, number, lambda: {"number": parameters.pop(0)}, seconds=30)
        if number not in crashes:
            got[number] = given["number"]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: number for number in range(5) if number not in crashes}


def test_after_a_trial_that_never_fetched_none_takes_what_is_not_its_own(tmp_path: Path) -> None:
    fetched: list[int] = []
    fetch_in_order(tmp_path, 0, lambda: {"number": fetched.append(0)})
    for number in (2, 3, 4):  # trial 1 was killed before it fetched
        with pytest.raises(LaunchError) as error:
            fetch_in_order(tmp_path, number, lambda: {"number": fetched.append(9)}, seconds=0.2)
        assert lacking(str(error.value), [f"trial {number}: trial {number - 1} has not fetched", "launch again"]) == []
    assert fetched == [0]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "0": FETCHED, "2": GIVEN_UP, "3": GIVEN_UP, "4": GIVEN_UP,
    }  # fmt: skip


def test_no_trial_begins_once_the_launch_is_being_stopped(tmp_path: Path) -> None:
    (tmp_path / STOP).touch()
    with pytest.raises(LaunchError, match="trial 0: the launch was stopped"):
        fetch_in_order(tmp_path, 0, lambda: {"number": 0})
