"""What a primitive may choose about its numbers: bits and range, for weights and for features."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Policy = Literal["power_of_two", "max", "fixed", "learned"]
POLICIES: tuple[Policy, ...] = ("power_of_two", "max", "fixed", "learned")


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """How the end of a quantisation range is found.

    ``power_of_two``: the smallest power of two at or above the largest magnitude (arXiv 2003.10375).
    ``max``: the largest magnitude itself. ``fixed``: ``limit``, whatever the values are.
    ``learned``: a parameter of the layer, trained by its own gradient (LSQ, arXiv 1902.08153).
    """

    policy: Policy = "power_of_two"
    limit: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"unknown range {self.policy!r}; choose from {', '.join(POLICIES)}")
        if (self.policy == "fixed") != (self.limit > 0):
            raise ValueError("a fixed range needs a positive limit, such as fixed(0.5); the others take none")

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read ``power_of_two``, ``max``, ``learned`` or ``fixed(0.5)``."""
        fixed = re.fullmatch(r"fixed\(([0-9.eE+-]+)\)", text.strip())
        if fixed:
            return cls("fixed", float(fixed.group(1)))
        if text not in ("power_of_two", "max", "learned"):
            raise ValueError(f"unknown range {text!r}; choose from power_of_two, max, learned, fixed(LIMIT)")
        return cls(text)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"fixed({_shortest(self.limit)})" if self.policy == "fixed" else self.policy


def _shortest(value: float) -> str:
    """Return the shortest text that reads back as ``value``: 2, not 2.0."""
    return str(int(value)) if value == int(value) and value < 1e15 else repr(value)


@dataclass(frozen=True, slots=True, order=True)
class Quantization:
    """The numbers of one primitive: how wide its weights and features are and where their ranges end."""

    weight_bits: int = 8
    weight_range: Range = Range()
    feature_bits: int = 8
    feature_range: Range = Range()

    def __post_init__(self) -> None:
        for name in ("weight_bits", "feature_bits"):
            bits = getattr(self, name)
            if not 2 <= bits <= 16:
                raise ValueError(f"{name} must be 2..16, got {bits}")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Quantization:
        """Read the form that ``to_dict`` writes."""
        return cls(
            weight_bits=int(content["weight_bits"]),
            weight_range=Range.parse(content["weight_range"]),
            feature_bits=int(content["feature_bits"]),
            feature_range=Range.parse(content["feature_range"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "weight_bits": self.weight_bits,
            "weight_range": str(self.weight_range),
            "feature_bits": self.feature_bits,
            "feature_range": str(self.feature_range),
        }

    def __str__(self) -> str:
        return f"w{self.weight_bits}:{self.weight_range} f{self.feature_bits}:{self.feature_range}"
