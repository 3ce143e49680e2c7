"""Reading a pickle of plain containers and NumPy arrays without running anything that it names.

A pickle may call whatever it names. Here every name that a plain array needs is answered by a stand-in of our
own, which only records what it is given; every other name ends the reading. NumPy sees nothing but the bytes,
as a buffer of plain numbers.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftnas.errors import DataError

INSTRUCTIONS = 1_000_000  # of a pickle, at most; a published batch has some 60,000
MEMO_WRITERS = ("PUT", "BINPUT", "LONG_BINPUT")
NUMBERS = frozenset({"b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"})


def read_mapping(content: bytes, *, source: str) -> dict[str, Any]:
    """Return the dictionary pickled in ``content``, with text keys and NumPy arrays.

    Byte strings that Python 2 wrote stay bytes, except keys. ``source`` (a file) begins every error.

    Raises:
        DataError: the pickle is damaged, is no dictionary, or names anything but plain arrays.
    """
    try:
        _check_memo(content)
        found = _ArrayUnpickler(content, source).load()
        if not isinstance(found, dict):
            raise DataError(f"{source}: a pickled dictionary is needed, found {type(found).__name__}")
        return {_text(key): _array_or_same(value) for key, value in found.items()}
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything, says the documentation of pickle
        raise DataError(f"{source}: is truncated or not a pickle of arrays ({_first_line(error)})") from None


def _check_memo(content: bytes) -> None:
    """Refuse memo positions beyond the pickle's own length, and more instructions than images need.

    The unpickler reserves 16 bytes for every position up to the one named, so ten bytes could ask for 34 GB; and an
    instruction of one byte makes a list of 56.
    """
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if number == INSTRUCTIONS:
            raise ValueError(f"more than {INSTRUCTIONS} instructions")
        if instruction.name in MEMO_WRITERS and int(argument or 0) > len(content):
            raise ValueError(f"memo position {argument}")


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, source: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._source = source

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in for ``module.name``."""
        try:
            return STAND_INS[f"{module}.{name}"]
        except KeyError:
            wanted = repr(f"{module}.{name}"[:80])
            reason = "only NumPy arrays and plain containers are read"
            raise DataError(f"{self._source}: refused to load {wanted}; {reason}") from None


# The stand-ins have no instance dictionary, and none that a pickle gets hold of is a class or a function: its
# BUILD and NEWOBJ instructions find nothing on them to change.


class _ArrayClass:
    """Stands for ``numpy.ndarray``, which a pickle hands to ``_reconstruct`` and never calls."""

    __slots__ = ()


class _Reconstruct:
    """Stands for NumPy's ``_reconstruct``: an empty array, filled by its state afterwards."""

    __slots__ = ()

    def __call__(self, *_: object) -> _PickledArray:
        return _PickledArray()


class _TypeOf:
    """Stands for ``numpy.dtype``."""

    __slots__ = ()

    def __call__(self, code: object, *_: object) -> _PickledType:
        return _PickledType(_text(code))


class _Encode:
    """Stands for ``_codecs.encode``, by which old protocols write bytes as latin-1 text."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
            raise ValueError("bytes must be written as latin-1 text")
        return text.encode("latin-1")


class _PickledType:
    """The type of an array's numbers: ``u1`` and the like, and a byte order."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str) -> None:
        if code not in NUMBERS:
            raise ValueError(f"array of {code[:20]!r}, not of plain numbers")
        self._code, self._order = code, "|"

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {order[:20]!r}")
        self._order = order

    @property
    def numbers(self) -> np.dtype[Any]:
        """The NumPy type."""
        return np.dtype(self._code).newbyteorder("=" if self._order == "|" else self._order)  # type: ignore[arg-type]


class _PickledArray:
    """An array as the pickle describes it: version, shape, type, order, bytes."""

    __slots__ = ("array",)

    array: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _PickledType) or not isinstance(content, bytes):
            raise ValueError("an array's state is not type and bytes")
        flat = np.frombuffer(content, dtype=kind.numbers)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


_RECONSTRUCT = _Reconstruct()
STAND_INS = {
    "numpy.core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy.ndarray": _ArrayClass(),
    "numpy.dtype": _TypeOf(),
    "_codecs.encode": _Encode(),
}


def _array_or_same(value: Any) -> Any:
    return value.array if isinstance(value, _PickledArray) else value


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]
