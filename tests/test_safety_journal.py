"""What the fuzzers found in journals of studies: damage that no checksum shows, and contents of other types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_controller import TINY, cost, score, settings_for

from ftnas.errors import RunError
from ftnas.search.controller import run_study


def study(file: Path) -> None:
    settings = settings_for("random", trials=4)
    run_study(
        TINY, evaluate=score, cost=cost, settings=settings, first=[], journal=file, seed=0, on_trial=lambda *_: None
    )


def test_a_checksum_of_a_journal_in_a_line_that_is_none_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    study(file)
    lines = file.read_bytes().splitlines(keepends=True)
    [first, *_] = [number for number, line in enumerate(lines) if b'"crc32"' in line]
    file.write_bytes(b"".join([*lines[:first], lines[first].replace(b'":2', b"#:2", 1), *lines[first + 1 :]]))
    with pytest.warns(UserWarning, match=f"line {first + 1} is damaged"):
        study(file)


def test_a_fingerprint_of_an_old_journal_that_is_none_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    study(file)
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if b'"crc32"' not in line]
    file.write_bytes(re.sub(rb'"fingerprint":{[^}]*}', b'"fingerprint":true', b"".join(lines)))
    with pytest.raises(RunError, match="is not a study of ftnas"):
        study(file)


def test_a_score_of_an_old_journal_of_a_wrong_type_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    study(file)
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if b'"crc32"' not in line]
    file.write_bytes(b"".join(lines).replace(b'"faulty":', b'"fault":', 1))
    with pytest.raises(RunError, match=r"journal\.log: is damaged.*'faulty' is missing"):
        study(file)
