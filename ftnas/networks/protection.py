"""How a layer is protected, and which layers can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ftnas.errors import HardeningError
from ftnas.networks.correction import COPIES, Method, Rule, rules_of
from ftnas.quantization import ConvertedLayer, QuantizedConv2d, QuantizedLayer, QuantizedLinear, QuantizedSum

METHODS: tuple[Method, ...] = get_args(Method)
LEAST_BITS = 4  # of a code that is split: with fewer, the two values that a masked half may have had are too near


@dataclass(frozen=True, slots=True)
class Protection:
    """How one layer is protected.

    Attributes:
        method: a key of ``COPIES``.
        rule: by which copies are merged, or values restricted.
        channels: which output channels, ascending; of ``bound``, which concerns whole layers, none.
    """

    method: Method
    rule: Rule
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in COPIES:
            raise HardeningError(f"method: {self.method!r} is unknown; choose from {', '.join(COPIES)}")
        if self.rule not in rules_of(self.method):
            raise HardeningError(f"rule: {self.rule!r}; {self.method} goes by {' or '.join(rules_of(self.method))}")
        if (self.method == "bound") == bool(self.channels) or list(self.channels) != sorted(set(self.channels)):
            raise HardeningError(f"channels: {self.channels}; allowed are ascending channels, for bound none")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"method": self.method, "rule": self.rule, "channels": list(self.channels)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Protection:
        """Read what ``to_dict`` wrote."""
        return cls(content["method"], content["rule"], tuple(map(int, content["channels"])))


def check_protection(path: str, layer: QuantizedLayer, protection: Protection) -> None:
    """Refuse a ``protection`` that ``layer`` at ``path`` cannot have.

    Raises:
        HardeningError: the layer holds no integer codes, or too narrow ones, or the method is not for such a layer.
    """
    method, numbers = protection.method, layer.quantization
    if not isinstance(layer, QuantizedConv2d | QuantizedLinear | ConvertedLayer | QuantizedSum):
        raise HardeningError(f"{path}: {type(layer).__name__} cannot be hardened")
    if numbers.word != "integer":
        raise HardeningError(f"{path}: stores {numbers.word} values; only layers with integer codes can be hardened")
    if len(layer.choices) > 1:
        raise HardeningError(f"{path}: may have {len(layer.choices)} quantisations; harden the derived net instead")
    if method.startswith("split") and numbers.feature_bits < LEAST_BITS:
        raise HardeningError(f"{path}: has codes of {numbers.feature_bits} bits; {method} needs {LEAST_BITS} or more")
    if layer.kind == "sum" and method in ("split_weights", "bound"):
        raise HardeningError(f"{path}: is a sum without weights, which {method} is about")
    if method == "split_weights" and getattr(layer, "activation", None) is not None:
        raise HardeningError(f"{path}: has its activation before batch norm, so that halves of its weights do not add")
    if layer.kind != "sum" and protection.channels and protection.channels[-1] >= len(layer.weight):
        raise HardeningError(f"{path}: has {len(layer.weight)} channels; there is no channel {protection.channels[-1]}")
    group = channels_together(layer)
    if any(channel // group * group + index not in protection.channels for channel in protection.channels
           for index in range(group)):  # fmt: skip
        raise HardeningError(f"{path}: computes {group} channels of each group together; protect whole groups")


def channels_together(layer: QuantizedLayer) -> int:
    """Return how many output channels only make sense together: those of a group of a grouped convolution."""
    groups: int = getattr(layer, "groups", 1)
    return len(layer.weight) // groups if groups > 1 else 1
