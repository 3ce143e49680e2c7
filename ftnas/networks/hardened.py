"""Hardened layers: a quantised layer, redundant copies of some of its channels, and what makes one output of them.

The layer and each copy are ordinary quantised layers, so faults hit each on its own, and each is counted. The unit
behind them computes on codes and is taken to be free of faults, as in arXiv 2306.09973, where it stands outside the
array that computes.

protect_(net, {"stem": Protection("split", "min", (0, 3))})
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ftnas.errors import HardeningError
from ftnas.networks.correction import (
    COPIES,
    CORRECTIONS,
    LIMITS,
    Method,
    Rule,
    differing,
    doubtful_halves,
    rules_of,
)
from ftnas.quantization import (
    CodeHalf,
    ConvertedLayer,
    FixedPoint,
    Quantization,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    QuantizedSum,
    RedundantCopy,
    Storage,
    WeightBound,
    WeightHalf,
    current_tap,
    fixed_point,
    inputs_of,
    quantized_layers,
)

# Without faults their unit gives what the layer alone would.
PURELY_REDUNDANT = ("split", "duplicate_min", "tmr")
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


class CorrectionUnit(nn.Module):
    """Merges the codes of a layer's output with those of its copies, or restricts them to a range.

    Attributes:
        protection: of the layer.
        channels: which channels of the layer's output the copies are of; ``None`` where it is all of them.
    """

    channels: Tensor | None
    _fixed: FixedPoint | None

    def __init__(self, layer: QuantizedLayer, protection: Protection, channels: Tensor | None) -> None:
        super().__init__()
        self._whole, self._fixed = [layer], None
        self.protection = protection
        self.register_buffer("channels", channels, persistent=False)
        device = layer.feature_limit.device
        for index in range(LIMITS.get(protection.method, 0)):
            self.register_buffer(f"limit_{index}", torch.zeros(len(protection.channels), device=device))
        self.forget_()

    @property
    def limits(self) -> list[Tensor]:
        """Numbers that were calibrated for each channel, ``[k]``, in codes."""
        return [getattr(self, f"limit_{index}") for index in range(LIMITS.get(self.protection.method, 0))]

    @property
    def quantization(self) -> Quantization:
        """The layer's own."""
        return self._whole[0].quantization

    def number(self, quantization: Quantization | None = None) -> FixedPoint:
        """Return the format of the codes."""
        return self._fixed or fixed_point(self._whole[0].feature_number(quantization))

    def fix_number_(self) -> None:
        """Keep the format that the layer has now, as a net does that is compiled."""
        self._fixed = self.number()

    def forget_(self) -> None:
        """Let the unit restrict nothing, until it is calibrated or loaded."""
        ends = (math.inf,) if self.protection.method == "split_weights" else (-math.inf, math.inf)
        for limit, end in zip(self.limits, ends, strict=bool(self.limits)):
            limit.fill_(end)

    def observed(self, terms: Sequence[Tensor], quantization: Quantization | None = None) -> list[Tensor]:
        """Return the limits ``[k]`` that would leave ``terms`` as they are; arguments as of ``forward``."""
        whole, *copies = terms
        first = whole if self.channels is None else whole.index_select(1, self.channels)
        scale = self.number(quantization).scale_of(whole)
        codes = [(term / scale).round().transpose(0, 1).flatten(1) for term in (first, *copies)]
        if self.protection.method == "split_weights":
            return [(codes[0] - codes[1]).abs().amax(1)]
        return [codes[0].amin(1), codes[0].amax(1)]

    def joined(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> list[Tensor]:
        """Return the limits that two sets of observed ones need together."""
        low = self.protection.method == "guard"  # whose first limit is the lowest code
        joins = (torch.minimum if low else torch.maximum, torch.maximum)
        return [join(*pair) for join, *pair in zip(joins, one, other, strict=False)]

    def settle_(self, limits: Sequence[Tensor]) -> None:
        """Take ``limits``, as ``observed`` returns them."""
        for held, limit in zip(self.limits, limits, strict=True):
            held.copy_(limit)

    def forward(self, terms: Sequence[Tensor], quantization: Quantization | None = None) -> Tensor:
        """Return the corrected output ``[N, C, ...]``.

        Args:
            terms: the layer's output ``[N, C, ...]``, then those of the copies ``[N, k, ...]``.
            quantization: of the output, by default the layer's own.
        """
        whole, *copies = terms
        number = self.number(quantization)
        if self.channels is None:
            return self._corrected(terms, number)
        first = whole.index_select(1, self.channels)
        return whole.index_copy(1, self.channels, self._corrected([first, *copies], number))

    def _corrected(self, terms: Sequence[Tensor], number: FixedPoint) -> Tensor:
        if self.protection.method in PURELY_REDUNDANT and not torch.compiler.is_compiling():
            return self._repaired(terms, number)
        limits = [limit.view(-1, *[1] * (terms[0].dim() - 2)) for limit in self.limits]
        found = self._merged(terms, number, limits)
        if not any(term.requires_grad for term in terms):
            return found
        combined = _combined(terms, self.protection.method)
        # As with any fault: a constant that the gradient passes.
        combined.detach().copy_(found)
        return combined

    def _merged(self, terms: Sequence[Tensor], number: FixedPoint, limits: Sequence[Tensor]) -> Tensor:
        """Return what the rule makes of values ``terms``."""
        scale = number.scale_of(terms[0])
        codes = [(term.detach() / scale).round_() for term in terms]
        return CORRECTIONS[self.protection.method, self.protection.rule](codes, number, limits) * scale

    def _repaired(self, terms: Sequence[Tensor], number: FixedPoint) -> Tensor:
        """Return the same, computed only where copies are not what one code gives: a sixth of the time."""
        combined, scale = _combined(terms, self.protection.method), number.scale_of(terms[0])
        values, held = combined.detach(), [term.detach() for term in terms]
        if self.protection.method == "split":
            where = doubtful_halves(held[0], held[1], values, number).nonzero(as_tuple=True)
            values.div_(scale).round_().mul_(scale)  # the sum of two products is not always the product of the sum
        else:
            where = differing(held).nonzero(as_tuple=True)
            values.copy_(held[0])
        if where[0].numel():
            values[where] = self._merged([term[where] for term in held], number, [])
        return combined


def _combined(terms: Sequence[Tensor], method: Method) -> Tensor:
    """Return what ``terms`` make where no fault is, as a new tensor: the sum of halves, the mean of equals."""
    if method in ("split", "split_weights"):
        return terms[0] + terms[1]
    if not any(term.requires_grad for term in terms):
        return terms[0].clone()
    return torch.stack(list(terms)).mean(0)


class HardenedLayer(nn.Module):
    """A quantised layer with protected channels; it is called as the layer is.

    Attributes:
        layer: what it was, which still computes all channels.
        copies: what computes the protected ones again.
        unit: what makes one output of all.
    """

    inputs: Tensor | None

    def __init__(self, layer: QuantizedLayer, protection: Protection) -> None:
        super().__init__()
        device = layer.feature_limit.device
        channels = torch.tensor(protection.channels, device=device)
        outputs = layer.weight.shape[0] if layer.kind != "sum" else None
        every = list(protection.channels) == list(range(outputs or 0))
        self.protection = protection
        self.layer = layer
        layer.storage = _half(protection.method, upper=True, channels=None if every else channels)
        self.copies = nn.ModuleList(
            RedundantCopy(layer, channels, _half(protection.method, upper=False, channels=None))
            for _ in range(COPIES[protection.method])
        )
        self.unit = CorrectionUnit(layer, protection, None if every else channels)
        self.register_buffer("inputs", None if every else inputs_of(layer, channels), persistent=False)
        self.train(layer.training)

    def forward(self, x: Tensor | Sequence[Tensor], quantization: Quantization | None = None) -> Tensor:
        """Return the corrected output of the layer."""
        numbers = () if quantization is None else (quantization,)  # not every layer can be asked for other ones
        if self._is_unseen():
            whole: Tensor = self.layer(x, *numbers)
            return whole
        terms = [self.layer(x, *numbers), *(copy(self._read(x), *numbers) for copy in self.copies)]
        corrected: Tensor = self.unit(terms, quantization)
        return corrected

    def train(self, mode: bool = True) -> HardenedLayer:
        """Set the mode. Halves by weights measure no ranges or statistics, which would be those of halves."""
        super().train(mode)
        if self.protection.method == "split_weights":
            self.layer.eval()
            self.copies.eval()
        return self

    def _is_unseen(self) -> bool:
        """Return whether nothing can fail, so that copies would only repeat what the layer says."""
        # What stands for the layer in a compiled or an exported net has no tap to ask.
        is_plain = isinstance(self.layer, QuantizedLayer) and self.protection.method in PURELY_REDUNDANT
        return is_plain and current_tap() is None and not any("weight" in one._buffers for one in self.copies)

    def _read(self, x: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Return what the copies read of ``x``."""
        if not isinstance(x, Tensor):
            return [term if self.inputs is None else term.index_select(1, self.inputs) for term in x]
        return x if self.inputs is None else x.index_select(1, self.inputs)


def protect_(model: nn.Module, plan: Mapping[str, Protection]) -> nn.Module:
    """Protect the quantised layers of ``model`` at the paths of ``plan``, and return the model.

    Units that restrict values, and halves by weights, still have to be calibrated, or loaded.

    Raises:
        HardeningError: a layer is not there, is hardened already, or cannot be protected so.
    """
    layers, taken = quantized_layers(model), set(protections_of(model))
    hardened: dict[nn.Module, nn.Module] = {}
    for path, protection in plan.items():
        if any(path == other or path.startswith(f"{other}.") for other in taken):
            raise HardeningError(f"{path}: is hardened already")
        if path not in layers or not path:
            raise HardeningError(f"{path or 'the net'}: is no quantised layer inside the net")
        check_protection(path, layers[path], protection)
        if protection.method == "bound":
            layers[path].storage = WeightBound()
        else:
            hardened[layers[path]] = HardenedLayer(layers[path], protection)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in hardened and parent is not hardened[child]:
                parent._modules[name] = hardened[child]
    return model


def protections_of(model: nn.Module) -> dict[str, Protection]:
    """Return how the layers of ``model`` are protected, by the path that each had before."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, HardenedLayer):
            found[path] = module.protection
        elif isinstance(module, QuantizedLayer) and isinstance(module.storage, WeightBound):
            found[path] = Protection("bound", "zero")
    return found


def hardened_layers(model: nn.Module) -> dict[str, HardenedLayer]:
    """Return the hardened layers of ``model`` by module path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, HardenedLayer)}


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


def _half(method: Method, *, upper: bool, channels: Tensor | None) -> Storage | None:
    if method == "split":
        return CodeHalf(upper=upper, channels=channels)
    if method == "split_weights":
        return WeightHalf(upper=upper, channels=channels)
    return None


METHODS: tuple[Method, ...] = get_args(Method)
