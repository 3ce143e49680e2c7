"""The parts of a search space's file, each checked as it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, model_validator

from ftnas.configuration import Section
from ftnas.quantization import RECTIFIERS, Quantization, Range, Rectifier
from ftnas.space.primitives import OPERATORS


class Sizes(Section):
    """Width and depth of a network: channels of its first cells, number of cells, indices of the reduction cells."""

    channels: int = Field(ge=2, le=10_000)
    cells: int = Field(ge=1, le=200)
    reductions: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _reductions_inside(self) -> Self:
        for index in self.reductions:
            if not 0 <= index < self.cells:
                raise ValueError(
                    f"reductions: cell {index} is outside the layout; "
                    f"{self.cells} cells have indices 0..{self.cells - 1}"
                )
        if list(self.reductions) != sorted(set(self.reductions)):
            raise ValueError(f"reductions: indices must rise without repeating, got {list(self.reductions)}")
        if len(self.reductions) == self.cells:
            raise ValueError(f"reductions: at least one of the {self.cells} cells must stay normal")
        return self

    def kind(self, cell: int) -> str:
        """Return the kind of the cell with index ``cell``: normal or reduction."""
        return "reduction" if cell in self.reductions else "normal"

    def width(self, cell: int) -> int:
        """Return the channels of each node of that cell; they double in every reduction cell."""
        return self.channels << sum(index <= cell for index in self.reductions)


class Stem(Section):
    """The first layer: a 3x3 convolution with batch norm to ``multiplier`` times the channels, stride 1."""

    multiplier: int = Field(default=3, ge=1, le=100)


class Preprocess(Section):
    """What brings each of a cell's two inputs to the cell's channels."""

    operator: Literal["relu_conv_bn_1x1", "relu_conv_bn_3x3"] = "relu_conv_bn_1x1"
    affine: bool = True


def _known(operator: str) -> str:
    if operator not in OPERATORS:
        raise ValueError(f"unknown operator; choose from {', '.join(OPERATORS)}")
    return operator


def _bits(key: str, given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise ValueError(f"{key} must be a whole number 2..16, got {given!r}")
    return int(given)


def _range(key: str, given: Any) -> Range:
    if not isinstance(given, str):
        raise ValueError(f"{key} must be power_of_two, max, learned or fixed(LIMIT), got {given!r}")
    try:
        limits = Range.parse(given)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not math.isfinite(limits.limit):
        raise ValueError(f"{key}: {given} has no finite limit")
    if Range.parse(str(limits)) != limits:
        raise ValueError(f"{key}: {given} has more digits than are kept; write {limits}")
    return limits


_READERS = {"weight_bits": _bits, "weight_range": _range, "feature_bits": _bits, "feature_range": _range}


def read_quantization(given: Any) -> Quantization:
    """Read a mapping whose keys are all optional, such as ``{weight_bits: 4, feature_range: fixed(2)}``."""
    if isinstance(given, Quantization):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"a mapping with keys from {', '.join(_READERS)} is needed")
    for key in given:
        if key not in _READERS:
            raise ValueError(f"unknown key {key!r}; choose from {', '.join(_READERS)}")
    values: dict[str, Any] = {key: _READERS[key](key, value) for key, value in given.items()}
    return Quantization(**values)


def _rectifier(given: Any) -> Rectifier:
    if isinstance(given, Rectifier):
        return given
    if not isinstance(given, str):
        raise ValueError(f"an activation is text: {', '.join(RECTIFIERS)}")
    return Rectifier.parse(given)


Activation = Annotated[Rectifier, PlainValidator(_rectifier), PlainSerializer(str, return_type=str)]
Operator = Annotated[str, AfterValidator(_known)]
QuantizationChoice = Annotated[
    Quantization, PlainValidator(read_quantization), PlainSerializer(Quantization.to_dict, return_type=dict[str, Any])
]
