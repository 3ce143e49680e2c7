"""Files that were cut or altered after they were written: noticed, named, and the last good state is what goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import Killed, cut, flip
from small_nets import same_bits
from small_trainings import run
from torch import nn

from ftnas.checksums import LIST
from ftnas.errors import RunError
from ftnas.files import read_json, read_latest, read_tensors, remove, write_json, write_tensors, write_text
from ftnas.holding import list_checksums
from ftnas.training import has_checkpoint, read_checkpoint, remove_checkpoint, save_checkpoint

ROW = {"accuracy": 0.9375, "chips": [0.5, 0.25]}


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
