"""Files that are whole or absent, and one clear line about those that are not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftnas.errors import RunError
from ftnas.files import read_json, read_tensors, replacing, write_json, write_tensors, write_text

TENSORS = {
    "weight": torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "weights.safetensors", TENSORS, {"epoch": 3})
    return tmp_path / "weights.safetensors"


# Replacing


def test_a_written_file_holds_its_text(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "überall\n")
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "überall\n"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "runs" / "one" / "note.txt", "here")
    assert (tmp_path / "runs" / "one" / "note.txt").exists()


def test_a_file_is_replaced_by_a_later_one(tmp_path: Path) -> None:
    for text in ("first and longer", "second"):
        write_text(tmp_path / "note.txt", text)
    assert (tmp_path / "note.txt").read_text() == "second"


def write_and_fail(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half of it")
        raise KeyboardInterrupt


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "old")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / "note.txt")
    assert (tmp_path / "note.txt").read_text() == "old"


def test_a_write_that_fails_leaves_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / "note.txt")
    assert list(tmp_path.iterdir()) == []


def test_until_a_write_ends_the_old_file_is_there(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "old")
    with replacing(tmp_path / "note.txt") as part:
        part.write_text("new")
        assert (tmp_path / "note.txt").read_text() == "old"


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "open")
    assert os.stat(tmp_path / "note.txt").st_mode & 0o777 == 0o644


# JSON


@given(content=PLAIN)
def test_plain_data_reads_back_equal(content: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("json") / "data.json"
    write_json(path, content)
    assert read_json(path) == content


def test_data_that_is_not_plain_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "data.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "data.json", [object()])
    assert read_json(tmp_path / "data.json") == [1]


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^\S+data.json: cannot be read \(No such file or directory\)$"):
        read_json(tmp_path / "data.json")


@pytest.mark.parametrize("content", [b"", b'{"epoch": 3', b"\xff\xfe", b"epoch: 3"])
def test_json_that_is_not_whole_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(RunError, match=r"\A\S+data.json: is not whole JSON \(.+\); delete it to compute it again\Z"):
        read_json(tmp_path / "data.json")


# Tensors


def test_tensors_read_back_equal(saved: Path) -> None:
    read, _ = read_tensors(saved)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in TENSORS.items())


def test_metadata_travels_with_tensors(saved: Path) -> None:
    assert read_tensors(saved)[1] == {"epoch": 3}


def test_tensors_that_share_memory_are_all_kept(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "shared.safetensors", {"whole": whole, "part": whole[2:4]})
    read, _ = read_tensors(tmp_path / "shared.safetensors")
    assert (read["whole"].tolist(), read["part"].tolist()) == ([0, 1, 2, 3, 4, 5], [2, 3])


def test_tensors_with_a_gradient_are_written_without_it(tmp_path: Path) -> None:
    write_tensors(tmp_path / "leaf.safetensors", {"leaf": torch.ones(2, requires_grad=True) * 2})
    assert not read_tensors(tmp_path / "leaf.safetensors")[0]["leaf"].requires_grad


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_a_truncated_file_of_tensors_is_named_in_one_line(kept: int, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(
        RunError, match=r"\A\S+: is not a whole safetensors file \(.+\); delete it to compute it again\Z"
    ):
        read_tensors(saved)


def test_a_missing_file_of_tensors_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"\A\S+weights.safetensors: is not a whole safetensors file \(.+\Z"):
        read_tensors(tmp_path / "weights.safetensors")


def test_tensors_that_cannot_be_written_leave_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.files.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(RunError, match=r"weights.safetensors: cannot be written \(disk full\); what was there is"):
        write_tensors(saved, {"weight": torch.zeros(2)})
    assert read_tensors(saved)[1] == {"epoch": 3}


def test_a_folder_that_cannot_be_made_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match=r"\A\S+file: cannot be made \(.+\); choose another place\Z"):
        write_text(tmp_path / "file" / "one.txt", "text")
