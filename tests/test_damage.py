"""Files that were cut or altered after they were written: noticed, named, and the last good state is what goes on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import same_bits
from small_trainings import run
from test_controller import run as run_study
from test_controller import settings_for
from torch import nn

from ftnas.checksums import LIST
from ftnas.errors import RunError
from ftnas.files import read_json, read_latest, read_tensors, remove, write_json, write_tensors, write_text
from ftnas.holding import list_checksums
from ftnas.pipeline.answers import keeping_answers
from ftnas.search.journal import JsonLines
from ftnas.training import has_checkpoint, read_checkpoint, remove_checkpoint, save_checkpoint

ROW = {"accuracy": 0.9375, "chips": [0.5, 0.25]}


def flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path, byte: int) -> None:
    path.write_bytes(path.read_bytes()[:byte])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    list_checksums(tmp_path / "run")
    return tmp_path / "run"


def sums(folder: Path) -> dict[str, str]:
    lines = [line for line in (folder / LIST).read_text().splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


# Results with a list of checksums


@pytest.mark.parametrize("harm", [flip, cut])
def test_any_altered_byte_of_a_result_is_noticed(harm: Callable[[Path, int], None], folder: Path) -> None:
    file = folder / "trainings" / "one" / "result.json"
    write_json(file, ROW)
    whole = file.read_bytes()
    for byte in range(len(whole)):
        harm(file, byte)
        with pytest.raises(
            RunError, match=r"\A\S+result.json: is damaged \(its checksum is another than in \S+\); del"
        ):
            read_json(file)
        file.write_bytes(whole)
    assert read_json(file) == ROW


def test_a_file_without_a_checksum_is_read_as_before(folder: Path) -> None:
    (folder / "copied.json").write_text(json.dumps(ROW))
    assert read_json(folder / "copied.json") == ROW


def test_outside_a_folder_of_results_no_list_is_begun(tmp_path: Path) -> None:
    write_json(tmp_path / "alone.json", ROW)
    assert [path.name for path in tmp_path.iterdir()] == ["alone.json"]


def test_a_folder_within_has_no_list_of_its_own(folder: Path) -> None:
    list_checksums(folder / "trainings" / "one")
    write_json(folder / "trainings" / "one" / "result.json", ROW)
    assert list(sums(folder)) == ["trainings/one/result.json"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_sha256sum_checks_the_list(folder: Path) -> None:
    for text in ("first", "second"):
        write_text(folder / "a b.txt", text)
    write_tensors(folder / "deep" / "w.safetensors", {"w": torch.ones(2)})
    write_json(folder / "gone.json", ROW)
    remove(folder / "gone.json")
    subprocess.run(["sha256sum", "--strict", "--check", LIST], cwd=folder, check=True, capture_output=True)
    assert list(sums(folder)) == ["a b.txt", "deep/w.safetensors"]


class Killed(BaseException):
    """Nothing after it runs but what a power cut would leave."""


@pytest.mark.parametrize("moves", range(4))
def test_a_crash_at_any_move_leaves_a_whole_file_that_counts_as_whole(
    moves: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(folder / "result.json", "old")
    left, replace = iter(range(moves)), Path.replace

    def killing(self: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killing)
        try:
            write_json(folder / "result.json", "new")
        except Killed:
            pass
        else:
            assert moves >= 2
    assert read_json(folder / "result.json") == ("old" if moves == 0 else "new")
    write_json(folder / "result.json", "newest")
    assert read_json(folder / "result.json") == "newest"
    assert (folder / LIST).read_text().count("result.json") == 1


def test_a_list_that_a_crash_has_cut_loses_its_last_line_only(folder: Path) -> None:
    for name in ("one.json", "two.json"):
        write_json(folder / name, ROW)
    cut(folder / LIST, -20)
    assert (read_json(folder / "one.json"), read_json(folder / "two.json")) == (ROW, ROW)
    write_json(folder / "three.json", ROW)
    flip(folder / "three.json", 5)
    with pytest.raises(RunError, match="is damaged"):
        read_json(folder / "three.json")


def test_writers_at_once_lose_no_line(folder: Path) -> None:
    def write(name: str) -> None:
        for number in range(15):
            write_json(folder / f"{name}-{number % 5}.json", number)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums(folder)) == sorted(f"{name}-{number}.json" for name in "abc" for number in range(5))
    assert [read_json(folder / f"a-{number}.json") for number in range(5)] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("harm", [flip, cut])
def test_any_altered_byte_of_weights_is_noticed_wherever_they_are(
    harm: Callable[[Path, int], None], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    write_tensors(file, {"w": torch.arange(5.0), "n": torch.tensor(3)}, {"name": "one"})
    whole = file.read_bytes()
    for byte in range(len(whole)):
        harm(file, byte)
        with pytest.raises(RunError, match=r"\A\S+weights.safetensors: is not a whole safetensors file \(.+\); del"):
            read_tensors(file)
        file.write_bytes(whole)
    assert read_tensors(file)[1] == {"name": "one"}


def test_weights_without_a_checksum_are_read_as_before(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "old.safetensors", metadata={"ftnas": '{"name": "old"}'})
    assert read_tensors(tmp_path / "old.safetensors")[1] == {"name": "old"}


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    for epoch in range(2):
        save_checkpoint(tmp_path / "checkpoint.safetensors", nn.Linear(2, 2), {}, {"epoch": epoch})
    return tmp_path / "checkpoint.safetensors"


@pytest.mark.parametrize("byte", [0, 7, 40, 200, -1])
def test_of_a_damaged_checkpoint_the_one_before_is_used(byte: int, checkpoint: Path) -> None:
    flip(checkpoint, byte)
    damaged = checkpoint.read_bytes()
    with pytest.warns(
        UserWarning, match=r"is not a whole .+ kept as checkpoint.safetensors.damaged-1, and the one bef"
    ):
        assert read_checkpoint(checkpoint)[1] == {"epoch": 0}
    assert checkpoint.with_name("checkpoint.safetensors.damaged-1").read_bytes() == damaged
    assert read_checkpoint(checkpoint)[1] == {"epoch": 0}


def test_two_damaged_checkpoints_are_an_error_and_stay(checkpoint: Path) -> None:
    files = sorted(checkpoint.parent.iterdir())
    for file in files:
        cut(file, 50)
    with pytest.raises(RunError, match=r"\A\S+: is not a whole safetensors file .+; delete it to compute it again\Z"):
        read_checkpoint(checkpoint)
    assert sorted(checkpoint.parent.iterdir()) == files


def test_a_crash_between_the_moves_of_a_save_leaves_the_one_before(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.unlink()
    assert has_checkpoint(checkpoint)
    assert read_checkpoint(checkpoint)[1] == {"epoch": 0}
    remove_checkpoint(checkpoint)
    assert not has_checkpoint(checkpoint)


def test_a_training_with_a_damaged_checkpoint_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.saving.REST", 0)

    def stop(record: Any) -> None:
        if record.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "checkpoint.safetensors", on_epoch=stop)
    flip(tmp_path / "checkpoint.safetensors", -3)
    with pytest.warns(UserWarning, match="kept as"):
        assert same_bits(run(checkpoint=tmp_path / "checkpoint.safetensors")[0], run()[0])


def test_what_is_written_again_and_again_reads_its_last_good_file(folder: Path) -> None:
    from ftnas.files import previous_of, replacing

    file = folder / "checkpoint.json"
    for number in range(3):
        with replacing(file, previous=previous_of(file)) as part:
            part.write_text(json.dumps(number))
    assert sorted(sums(folder)) == ["checkpoint.json", "checkpoint.previous.json"]
    flip(file, 0)
    with pytest.warns(UserWarning, match=r"is damaged .+ kept as checkpoint.json.damaged-1"):
        assert read_latest(file, read_json) == 1


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
