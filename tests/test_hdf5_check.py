"""HDF5 files of strangers: refused before the library would read them for ever."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from fuzz_edits import Edit
from hypothesis import given
from hypothesis import strategies as st

from ftnas.spiking.dense.hdf5_check import HEADER, HEAP, check_file, check_heaps
from ftnas.spiking.dense.nir_file import write_nir
from tests.spiking_nets import small_net

pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    write_nir(small_net(), path)
    check_file(path)
    return path.read_bytes()


def with_object(content: bytes, place: int, number: int, length: int) -> bytes:
    """Return ``content`` with another object at ``place`` bytes into its first collection of strings."""
    at = content.index(HEAP) + HEADER + place
    return content[:at] + struct.pack("<HHIQ", number, 1, 0, length) + content[at + HEADER :]


def test_a_file_that_was_written_passes(content: bytes) -> None:
    assert HEAP in content
    check_heaps(content)


@pytest.mark.parametrize(
    ("number", "length"),
    [(0, 0), (0, 8), (0, 2**64 - 64), (1, 2**64 - 1), (1, 2**64 - 64), (1, 5000), (7, 2**63)],
)
def test_an_object_that_leads_nowhere_is_refused(content: bytes, number: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"the collection of strings at byte \d+ has an object of \d+ bytes at \d+"):
        check_heaps(with_object(content, 0, number, length))


@given(place=st.integers(0, 4000), number=st.integers(0, 2**16 - 1), length=st.integers(0, 2**64 - 1))
def test_objects_are_walked_to_the_end_or_refused(content: bytes, place: int, number: int, length: int) -> None:
    try:
        check_heaps(with_object(content, place, number, length))
    except ValueError as error:
        assert "\n" not in str(error)


def test_the_letters_alone_are_no_collection() -> None:
    check_heaps(HEAP + b"\xff" * 100)
    check_heaps(b"x" * 10 + HEAP)


def test_the_file_that_a_fuzzer_hung_at_is_refused(tmp_path: Path) -> None:
    import fuzz_nets

    reader = fuzz_nets.nir()
    reader.make(tmp_path)
    [(name, edited)] = reader.targets.items()
    file = tmp_path / name
    file.write_bytes(edited(file.read_bytes(), [Edit(kind=13, place=3100, what=13)]))
    with pytest.raises(ValueError, match="the collection of strings"):
        check_file(file)
