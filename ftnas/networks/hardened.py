"""Hardened layers: a quantised layer, redundant copies of some of its channels, and what makes one output of them.

The layer and each copy are ordinary quantised layers, so faults hit each on its own, and each is counted. The unit
behind them computes on codes and is taken to be free of faults, as in arXiv 2306.09973, where it stands outside the
array that computes.

protect_(net, {"stem": Protection("split", "min", (0, 3))})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ftnas.errors import HardeningError
from ftnas.networks.correction import COPIES, Method
from ftnas.networks.correction_unit import PURELY_REDUNDANT, CorrectionUnit
from ftnas.networks.protection import Protection, check_protection
from ftnas.networks.shared_product import HardenedParts, shared_output
from ftnas.quantization import (
    CodeHalf,
    Quantization,
    QuantizedLayer,
    RedundantCopy,
    Storage,
    WeightBound,
    WeightHalf,
    all_is_computed,
    current_tap,
    inputs_of,
    quantized_layers,
    statistics_run,
)


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
        if self._may_share():
            return shared_output(self._parts(), x, quantization)
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
        return (
            is_plain
            and current_tap() is None
            and not any(isinstance(one, RedundantCopy) and one.has_own_weight for one in self.copies)
        )

    def _may_share(self) -> bool:
        """Return whether copies may take over what the layer computes.

        Not for gradients, of which each has its own, nor where ranges are measured, nor where somebody's hook waits for
        a part to be called, nor in a graph, which is to compute whatever may fail.
        """
        is_plain = isinstance(self.layer, QuantizedLayer) and self.protection.method in PURELY_REDUNDANT
        is_watched = any(part._forward_hooks or part._forward_pre_hooks for part in (self.layer, *self.copies))
        is_measured = (self.training and statistics_run()) or all_is_computed()
        is_differentiated = torch.is_grad_enabled() or torch.compiler.is_compiling()
        return is_plain and not (is_watched or is_measured or is_differentiated)

    def _parts(self) -> HardenedParts:
        copies = [copy for copy in self.copies if isinstance(copy, RedundantCopy)]
        splits = self.protection.method == "split"
        return HardenedParts(self.layer, copies, self.unit, self.unit.channels, self._read, splits)

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


def _half(method: Method, *, upper: bool, channels: Tensor | None) -> Storage | None:
    if method == "split":
        return CodeHalf(upper=upper, channels=channels)
    if method == "split_weights":
        return WeightHalf(upper=upper, channels=channels)
    return None
