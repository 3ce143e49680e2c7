"""Journals, lines of JSON and kept answers that were cut or altered: what is whole of them is what goes on."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import Killed, cut, flip
from test_controller import run as run_study
from test_controller import settings_for

from ftnas.errors import RunError
from ftnas.pipeline.answers import keeping_answers
from ftnas.search.journal import JsonLines

# The journal of a study, and lines of JSON


def found(path: Path) -> list[Any]:
    return run_study(path, settings_for("nsga2", trials=12))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("harm", [flip, cut])
def test_a_study_with_a_damaged_journal_finds_the_same(
    harm: Callable[[Path, int], None], share: float, tmp_path: Path
) -> None:
    whole = found(tmp_path / "whole.log")
    shutil.copy(tmp_path / "whole.log", tmp_path / "harmed.log")
    harm(tmp_path / "harmed.log", int(share * (tmp_path / "whole.log").stat().st_size))
    damaged = (tmp_path / "harmed.log").read_bytes()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert found(tmp_path / "harmed.log") == whole
    if harm is flip:  # a cut end is what a kill leaves
        [warning] = [str(one.message) for one in told if "kept as" in str(one.message)]
        assert re.search(r"harmed.log: the checksum in line \d+ does not fit .+ kept as harmed.log.damaged-1", warning)
        assert (tmp_path / "harmed.log.damaged-1").read_bytes() == damaged


def test_a_journal_without_checksums_goes_on(tmp_path: Path) -> None:
    """As versions before this one wrote it."""
    whole = found(tmp_path / "whole.log")
    lines = (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)
    (tmp_path / "old.log").write_bytes(b"".join(line for line in lines[: len(lines) // 2] if b"crc32" not in line))
    assert found(tmp_path / "old.log") == whole


@pytest.mark.parametrize("byte", [2, 40, 70])
def test_damaged_lines_of_json_are_put_aside_and_those_before_stay(byte: int, tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "lines.jsonl")
    for number in range(3):
        lines.append({"number": number})
    size = (tmp_path / "lines.jsonl").stat().st_size // 3
    flip(tmp_path / "lines.jsonl", byte, 1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            assert JsonLines(tmp_path / "lines.jsonl").rows == [{"number": n} for n in range(byte // size)]
        except RunError as error:
            assert "line" in str(error)
        else:
            assert "kept as lines.jsonl.damaged-1" in str(told[0].message)


def test_lines_of_json_without_checksums_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"number":0}\n{"number":1}\n{"num')
    assert JsonLines(tmp_path / "old.jsonl").rows == [{"number": 0}, {"number": 1}]


# Answers of a long stage


def test_answers_survive_and_only_the_missing_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.pipeline.answers.SECONDS_BETWEEN_SAVES", 0.0)
    computed: list[int] = []

    def answer(number: int) -> float:
        if len(computed) == 2 and number == 2:
            computed.append(-1)
            raise Killed
        computed.append(number)
        return number / 3

    def ask() -> list[float]:
        with keeping_answers(tmp_path / "answers.jsonl", {"net": "a"}) as answers:
            return [answers.of(f"chip {number}", lambda number=number: answer(number)) for number in range(4)]  # type: ignore[misc]

    with pytest.raises(Killed):
        ask()
    assert ask() == [0, 1 / 3, 2 / 3, 1]
    assert computed == [0, 1, -1, 2, 3]
    assert list(tmp_path.glob("*.jsonl")) == []


def test_answers_of_another_net_are_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.pipeline.answers.SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(Killed), keeping_answers(tmp_path / "answers.jsonl", {"net": "a"}) as answers:
        answers.of("chip 0", lambda: 1)
        raise Killed
    with (
        pytest.warns(UserWarning, match=r"is of another net; it is kept as answers.jsonl.damaged-1"),
        keeping_answers(tmp_path / "answers.jsonl", {"net": "b"}) as answers,
    ):
        assert answers.of("chip 0", lambda: 2) == 2
