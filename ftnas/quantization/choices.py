"""What a primitive may choose about its numbers: bits and range, for weights and for features."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ftnas.quantization.formats import FloatWord, Word

Policy = Literal["power_of_two", "max", "fixed", "learned", "power_of_two_per_channel", "max_per_channel"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
_WITHOUT_LIMIT = tuple(policy for policy in POLICIES if policy != "fixed")

StoredWord = Literal["integer"] | Word
STORED_WORDS: tuple[StoredWord, ...] = ("integer", *get_args(Word))


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """How the end of a quantisation range is found.

    ``power_of_two``: the smallest power of two at or above the largest magnitude (arXiv 2003.10375).
    ``max``: the largest magnitude itself. ``fixed``: ``limit``, whatever the values are.
    ``learned``: a parameter of the layer, trained by its own gradient (LSQ, arXiv 1902.08153).
    ``power_of_two_per_channel`` and ``max_per_channel``: a range for each output channel of a weight.
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
        """Read ``power_of_two``, ``max``, ``learned``, either of the first two ``_per_channel``, or ``fixed(0.5)``."""
        fixed = re.fullmatch(r"fixed\(([0-9.eE+-]+)\)", text.strip())
        if fixed:
            if math.isinf(float(fixed.group(1))):
                raise ValueError(f"{text} has no finite limit")
            return cls("fixed", float(fixed.group(1)))
        if text not in _WITHOUT_LIMIT:
            raise ValueError(f"unknown range {text!r}; choose from {', '.join(_WITHOUT_LIMIT)}, fixed(LIMIT)")
        return cls(text)

    @property
    def per_channel(self) -> bool:
        """Whether each output channel has a range of its own."""
        return self.policy.endswith("_per_channel")

    @property
    def is_power_of_two(self) -> bool:
        """Whether ranges end at powers of two."""
        return self.policy.startswith("power_of_two")

    def __str__(self) -> str:
        return f"fixed({_shortest(self.limit)})" if self.policy == "fixed" else self.policy


def _shortest(value: float) -> str:
    """Return the shortest text that reads back as ``value``: 2, not 2.0."""
    return str(int(value)) if value == int(value) and value < 1e15 else repr(value)


@dataclass(frozen=True, slots=True, order=True)
class Quantization:
    """The numbers of one primitive: how wide its weights and features are and where their ranges end.

    Attributes:
        feature_signed: whether features may be negative; unsigned ones have a finer grid, which begins at 0.
        word: what a value is stored as. With a floating-point word, bits and ranges do not matter: values are
            rounded to the word and nothing else.
    """

    weight_bits: int = 8
    weight_range: Range = Range()
    feature_bits: int = 8
    feature_range: Range = Range()
    feature_signed: bool = True
    word: StoredWord = "integer"

    def __post_init__(self) -> None:
        for name in ("weight_bits", "feature_bits"):
            bits = getattr(self, name)
            if not 2 <= bits <= 16:
                raise ValueError(f"{name} must be 2..16, got {bits}")
        if self.feature_range.per_channel:
            raise ValueError(f"feature_range cannot be {self.feature_range}: only weights have a range per channel")
        if self.word not in STORED_WORDS:
            raise ValueError(f"unknown word {self.word!r}; choose from {', '.join(STORED_WORDS)}")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Quantization:
        """Read the form that ``to_dict`` writes."""
        return cls(
            weight_bits=int(content["weight_bits"]),
            weight_range=Range.parse(content["weight_range"]),
            feature_bits=int(content["feature_bits"]),
            feature_range=Range.parse(content["feature_range"]),
            feature_signed=bool(content.get("feature_signed", True)),
            word=content.get("word", "integer"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON. What only a user's own net has is left out where it is the default."""
        content: dict[str, Any] = {
            "weight_bits": self.weight_bits,
            "weight_range": str(self.weight_range),
            "feature_bits": self.feature_bits,
            "feature_range": str(self.feature_range),
        }
        unsigned = {} if self.feature_signed else {"feature_signed": False}
        return content | unsigned | ({} if self.word == "integer" else {"word": self.word})

    @property
    def float_word(self) -> FloatWord | None:
        """The format of weights and features where that is a floating-point word."""
        return None if self.word == "integer" else FloatWord(self.word)

    def __str__(self) -> str:
        if self.word != "integer":
            return self.word
        sign = "" if self.feature_signed else "u"
        return f"w{self.weight_bits}:{self.weight_range} f{self.feature_bits}{sign}:{self.feature_range}"
