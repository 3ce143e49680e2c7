"""The restricted unpickler: arrays and plain containers come through, nothing else does and nothing runs."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ftnas.data.restricted_pickle import NUMBERS, read_mapping
from ftnas.errors import DataError

IMAGES = np.zeros((2, 3072), np.uint8)


@given(st.data(), st.sampled_from(sorted(NUMBERS)), st.sampled_from("<>"), st.integers(0, 4))
def test_every_number_array_comes_through_unchanged(data: st.DataObject, kind: str, order: str, protocol: int) -> None:
    array = data.draw(arrays(np.dtype(order + kind), array_shapes(max_side=5)))
    read = read_mapping(pickle.dumps({"a": array, "b": [1, "x"]}, protocol=protocol), source="here")
    assert read["a"].dtype == array.dtype
    assert read["a"].shape == array.shape
    assert read["a"].tobytes() == array.tobytes()
    assert read["b"] == [1, "x"]


class Hostile:
    """Pickles to a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def hostile_calls(trace: Path) -> dict[str, Hostile]:
    """Calls that would leave ``trace`` behind, and others that must not be made."""
    return {
        "os.mkdir": Hostile(os.mkdir, str(trace)),
        "os.system": Hostile(os.system, f"touch {trace}"),
        "builtins.eval": Hostile(eval, f"open({str(trace)!r}, 'w')"),
        "builtins.getattr": Hostile(getattr, "", "upper"),
        "builtins.bytearray": Hostile(bytearray, 10),
        "numpy.load": Hostile(np.load, str(trace), None, True),
        "numpy.zeros": Hostile(np.zeros, (1,)),
        "pickle.loads": Hostile(pickle.loads, b"N."),
    }


HOSTILE_NAMES = tuple(hostile_calls(Path()))


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, name: str, protocol: int) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps({b"data": hostile_calls(trace)[name]}, protocol=protocol)
    function = name.rpartition(".")[2]
    with pytest.raises(DataError, match=rf"^here: refused to load '[\w.]+\.{function}'; only NumPy arrays and "):
        read_mapping(content, source="here")
    assert not trace.exists()


@pytest.mark.parametrize("kind", [object, "U3", [("a", "u1")], "M8[s]", "c8"])
def test_an_array_of_anything_but_plain_numbers_is_refused(kind: Any) -> None:
    content = pickle.dumps({b"data": np.zeros(2, dtype=kind)}, protocol=3)
    with pytest.raises(DataError, match=r"^here: "):
        read_mapping(content, source="here")


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
TRICKS = {
    "an array never filled": b"\x80\x02}U\x01a" + RECONSTRUCT + b")Rs.",
    "attributes of a stand-in": b"\x80\x02}U\x01a" + RECONSTRUCT + b"(N}U\x08__call__Nstbs.",
    "the dictionary of a stand-in": b"\x80\x02}U\x01a" + RECONSTRUCT + b"}U\x01bNsbs.",
    "the class of a stand-in": b"\x80\x02}U\x01a" + RECONSTRUCT + b"(N}U\x09__class__cnumpy\nndarray\nstbs.",
    "an instance of a stand-in": b"\x80\x02}U\x01acnumpy\nndarray\n)\x81s.",
    "an array too small for its shape": pickle.dumps({b"a": np.zeros(9, np.uint8)}, protocol=3).replace(
        b"K\x09\x85", b"K\x7f\x85"
    ),
    "a memo of 34 GB": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a list as key": b"\x80\x02}]Ns.",
    "a registered extension": b"\x80\x02\x82\x01.",
    "a persistent name": b"\x80\x02U\x01aQ.",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_the_stand_ins_cannot_be_bent(trick: str) -> None:
    with pytest.raises(DataError, match=r"^here: is truncated or not a pickle of arrays"):
        read_mapping(TRICKS[trick], source="here")
    assert read_mapping(pickle.dumps({b"a": IMAGES}, protocol=3), source="here")["a"].shape == (2, 3072)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_dictionary_or_a_data_error(content: bytes) -> None:
    try:
        assert isinstance(read_mapping(content, source="here"), dict)
    except DataError as error:
        assert str(error).startswith("here: ") and "\n" not in str(error)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_batch_with_one_wrong_byte_is_read_or_a_data_error(position: int, value: int) -> None:
    content = bytearray(pickle.dumps({b"data": IMAGES[:, :600], b"labels": [3, 4]}, protocol=2))
    content[position % len(content)] = value
    try:
        read_mapping(bytes(content), source="here")
    except DataError as error:
        assert str(error).startswith("here: ") and "\n" not in str(error)
