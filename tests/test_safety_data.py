"""What the fuzzers found in data sets: bombs, and headers that are none."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from ftnas.data import load_data
from ftnas.data.restricted_pickle import INSTRUCTIONS, read_mapping
from ftnas.errors import DataError


def npz(folder: Path, header: bytes, *, packed: bool = False) -> Path:
    rows = np.zeros((4, 8, 8), np.uint8) if not packed else np.zeros((2**14, 80, 80), np.uint8)
    labels = np.arange(len(rows)) % 2
    (np.savez_compressed if packed else np.savez)(
        folder / "a.npz", x_train=rows, y_train=labels, x_test=rows, y_test=labels
    )
    content = (folder / "a.npz").read_bytes()
    (folder / "a.npz").write_bytes(content.replace(b"{'descr': '|u1'", header, 1) if header else content)
    return folder / "a.npz"


def test_a_header_of_an_array_that_is_no_python_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is truncated or holds other than numbers"):
        load_data("npz", directory=npz(tmp_path, b"{'descr(((((((("))


@pytest.mark.slow
def test_an_archive_of_nothing_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 200 times its size"):
        load_data("npz", directory=npz(tmp_path, b"", packed=True))


def test_a_picture_of_nothing_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(side: int) -> bytes:
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        rows = zlib.compress(bytes(side * (side + 1)), 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.png").write_bytes(png(4000))
    with pytest.raises(DataError, match="unpack to more than 200 times their files"):
        load_data("folder", directory=tmp_path)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(file.read_bytes().replace(struct.pack(">II", 4000, 4000), struct.pack(">II", 9000, 9000)))
    with pytest.raises(DataError, match=r"is 9000x9000; images of up to|is not a whole image"):
        load_data("folder", directory=tmp_path)


def test_a_pickle_of_very_many_lists_is_refused_before_it_is_read() -> None:
    content = b"\x80\x02" + b"]" * (INSTRUCTIONS + 10) + b"."
    with pytest.raises(DataError, match=f"more than {INSTRUCTIONS} instructions"):
        read_mapping(content, source="a")
    assert read_mapping(pickle.dumps({"labels": list(range(100_000))}), source="a")["labels"][-1] == 99_999
