"""Hardened nets for tests, and the nets that they must compute like."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ftnas.faults import output_shapes
from ftnas.hardening.passes import calibrate_
from ftnas.networks.correction import Method, Rule, rules_of
from ftnas.networks.hardened import HardenedLayer, protect_
from ftnas.networks.protection import Protection, channels_together
from ftnas.quantization import FixedPoint, quantized_layers


def plan_for(
    net: nn.Module, images: Tensor, method: Method, rule: Rule | None = None, *, every: int = 1
) -> dict[str, Protection]:
    """Protect every ``every``-th channel of all layers that ``method`` is for; of a grouped convolution all."""
    plan, shapes = {}, output_shapes(net, images[:1])
    for path, layer in quantized_layers(net).items():
        if layer.kind == "sum" and method in ("split_weights", "bound"):
            continue
        step = every if layer.kind == "sum" or channels_together(layer) == 1 else 1
        channels = () if method == "bound" else tuple(range(0, shapes[f"{path}.output"][0], step))
        plan[path] = Protection(method, rule or rules_of(method)[0], channels)
    return plan


def hardened(net: nn.Module, images: Tensor, method: Method, rule: Rule | None = None, *, every: int = 1) -> nn.Module:
    """Return a copy of ``net`` with such a plan, calibrated on ``images``."""
    twin = copy.deepcopy(net).eval()
    return calibrate_(protect_(twin, plan_for(net, images, method, rule, every=every)), images)


def cut_off(net: nn.Module, plan: Mapping[str, Protection]) -> nn.Module:
    """Return a copy of ``net`` whose codes end one below the highest in the channels of ``plan``, as split ones do."""
    twin = copy.deepcopy(net).eval()
    for path, layer in quantized_layers(twin).items():
        if path in plan:
            layer.register_forward_hook(_cut(layer.feature_number(), list(plan[path].channels)))
    return twin


def _cut(number: object, channels: list[int]) -> Callable[..., Tensor]:
    assert isinstance(number, FixedPoint)

    def hook(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        codes = number.encode(output)
        codes[:, channels] = codes[:, channels].clamp(max=number.high - 1)
        return number.decode(codes)

    return hook


def part(model: nn.Module, path: str) -> HardenedLayer:
    """Return the hardened layer at ``path``."""
    layer = model.get_submodule(path)
    assert isinstance(layer, HardenedLayer)
    return layer


def logits(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = net(images)
    return found
