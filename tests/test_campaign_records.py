"""Records: append-only, whole after any kill, and honest about any other damage."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftnas.campaign.records import SCHEMA, Content, encoded, open_records, read_records
from ftnas.errors import CampaignError

HEADER = {"schema": SCHEMA, "campaign": "test", "settings": {"rates": [0.001, 0.1], "study": "a"}}
UNITS = [{"unit": f"chip {number}", "right": 100 - number, "share": number / 7} for number in range(5)]

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
CONTENTS = st.dictionaries(st.text(), VALUES | st.lists(VALUES) | st.dictionaries(st.text(), VALUES))


def write(path: Path, units: Sequence[Content] = UNITS, header: Content = HEADER) -> bytes:
    with open_records(path, header) as records:
        records.append([unit for unit in units if unit["unit"] not in records.known])
    return path.read_bytes()


def refused(path: Path, header: Content = HEADER) -> str:
    """Return the message with which ``path`` is refused, unchanged."""
    before = path.read_bytes()
    with pytest.raises(CampaignError) as error, open_records(path, header):
        pass
    assert path.read_bytes() == before
    return str(error.value)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the waits for the disk instead of waiting."""
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    return waits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign" / "records.jsonl"


def test_what_was_written_is_read(path: Path) -> None:
    write(path)
    records = read_records(path)
    assert (records.header, list(records.units), records.problem) == (HEADER, UNITS, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENTS)
def test_a_line_is_json_with_a_checksum_at_its_end(content: dict[str, Any]) -> None:
    line = encoded({"unit": "x", **content})
    assert line.count(b"\n") == 1
    plain = json.loads(line)
    assert list(plain)[-1] == "crc32"
    assert {"unit": "x", **content, "crc32": plain["crc32"]} == plain


def test_what_is_there_is_known_and_what_is_new_comes_after_it(path: Path) -> None:
    write(path, UNITS[:2])
    with open_records(path, HEADER) as records:
        assert list(records.known.values()) == UNITS[:2]
        records.append(UNITS[2:])
    assert list(read_records(path).units) == UNITS


def test_every_batch_of_lines_waits_for_the_disk(path: Path, quick_disk: list[int]) -> None:
    with open_records(path, HEADER) as records:
        assert len(quick_disk) == 1
        records.append(UNITS[:3])
        assert len(quick_disk) == 2
        assert path.read_bytes().count(b"\n") == 4


def test_without_a_path_nothing_is_kept_but_the_lines_are_known() -> None:
    with open_records(None, HEADER) as records:
        records.append(UNITS)
        assert list(records.known.values()) == UNITS


def test_after_a_kill_anywhere_the_file_becomes_what_it_would_have_been(path: Path) -> None:
    whole = write(path)
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        there = read_records(path)
        assert there.problem is None
        assert list(there.units) == UNITS[: max(0, whole[:size].count(b"\n") - 1)]
        assert write(path) == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_other_damage_names_file_and_line_and_leaves_the_lines_before_readable(
    place: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "records.jsonl"
    whole = write(path)
    place %= len(whole) - 1  # the last byte, its newline gone, is a cut
    line = whole[:place].count(b"\n") + 1
    if whole[place] == byte:
        return
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    there = read_records(path)
    assert there.problem is not None
    assert there.problem.startswith(f"{path}, line {line}: ")
    assert list(there.units) == UNITS[: max(0, line - 2)]
    assert refused(path) == there.problem


def test_a_unit_that_comes_twice_is_damage(path: Path) -> None:
    whole = write(path)
    path.write_bytes(whole + encoded(UNITS[1]))
    assert "line 7: repeats unit chip 1" in refused(path)
    assert list(read_records(path).units) == UNITS


def test_a_line_lost_in_the_middle_is_no_damage_as_its_unit_is_done_again(path: Path) -> None:
    whole = write(path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    write(path)
    assert {unit["unit"] for unit in read_records(path).units} == {unit["unit"] for unit in UNITS}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"campaign": "other"}, ['campaign is "test" there, "other" now']),
        ({"settings": {"rates": [0.001], "study": "a"}}, ["settings.rates is [0.001, 0.1] there, [0.001] now"]),
        ({"settings": {"rates": [0.001, 0.1]}}, ['settings.study is "a" there, null now']),
        ({"golden": "x" * 100}, ["golden is null there", "xxx... now"]),
    ],
)
def test_the_records_of_another_campaign_are_refused_by_the_key_that_differs(
    changes: dict[str, Any], words: list[str], path: Path
) -> None:
    write(path)
    line = refused(path, HEADER | changes)
    assert line.startswith(f"{path}: holds another campaign")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"schema":99,"crc32":"00000000"}\n', b"\x00" * 40])
def test_a_file_of_something_else_is_left_alone(content: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert str(path) in refused(path)


def test_a_schema_of_the_future_is_refused(path: Path) -> None:
    write(path, header=HEADER | {"schema": SCHEMA + 1})
    assert f"line 1: is no header of schema {SCHEMA}" in refused(path)


def test_two_writers_at_once_are_refused(path: Path) -> None:
    with open_records(path, HEADER) as records:
        records.append(UNITS[:1])
        assert f"is in use by process {os.getpid()} on {socket.gethostname()} (since" in refused(path)
    write(path)


def test_a_folder_in_place_of_the_file_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(CampaignError, match="cannot be written"), open_records(path, HEADER):
        pass
    with pytest.raises(CampaignError, match="cannot be read"):
        read_records(path)


def test_a_number_that_json_does_not_have_is_never_written(path: Path) -> None:
    with open_records(path, HEADER) as records, pytest.raises(ValueError, match="JSON"):
        records.append([{"unit": "chip 0", "share": float("nan")}])
