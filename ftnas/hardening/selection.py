"""Which channels are protected: what each is worth, what it costs, and what a budget buys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftnas.errors import HardeningError
from ftnas.faults import output_shapes
from ftnas.hardening.methods import HardeningOptions, Selection, ratios_by_layer
from ftnas.hardening.overhead import Resource, Size
from ftnas.hardening.vulnerability import LayerVulnerability
from ftnas.networks.correction import COPIES, OPERATIONS, Rule
from ftnas.networks.hardened import protections_of
from ftnas.networks.protection import Protection, channels_together, check_protection
from ftnas.quantization import QuantizedLayer, quantized_layers
from ftnas.runtime import keyed_generator


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A layer that can be protected.

    Attributes:
        layer: the quantised layer.
        shape: of its output for one image, channels first.
        group: how many channels can only be protected together.
        cost: of one such group in the resource that is budgeted.
    """

    layer: QuantizedLayer
    shape: tuple[int, ...]
    group: int
    cost: float

    @property
    def groups(self) -> int:
        """How many groups of channels it has."""
        return self.shape[0] // self.group

    def channels(self, groups: Iterable[int]) -> tuple[int, ...]:
        """Return the channels of ``groups``, ascending."""
        return tuple(sorted(group * self.group + index for group in groups for index in range(self.group)))


Chosen = dict[str, list[int]]  # layer path -> groups of channels


def plan_of(
    model: nn.Module,
    image: Tensor,
    options: HardeningOptions,
    rule: Rule,
    *,
    size: Size,
    vulnerability: Mapping[str, LayerVulnerability] | None = None,
) -> dict[str, Protection]:
    """Return how each layer of ``model`` is to be protected.

    Args:
        model: with known ranges.
        image: one image ``[1, C, H, W]``, of which only the shape counts.
        options: what is asked for.
        rule: by which copies are merged, or values restricted.
        size: of the net, which a budget is a share of.
        vulnerability: of the net, where channels are selected by it.

    Raises:
        HardeningError: nothing can be protected so, or the budget buys no channel.
    """
    candidates = candidates_of(model, image, options, rule)
    if options.method == "bound":
        return {path: Protection("bound", "zero") for path in candidates}
    order = {path: ranked(path, one, options, vulnerability) for path, one in candidates.items()}
    ratios = ratios_by_layer(options.ratios, list(candidates))
    if options.budget is None and not ratios:
        ratios = dict.fromkeys(candidates, 1.0)
    chosen: Chosen = {path: order[path][: round(share * candidates[path].groups)] for path, share in ratios.items()}
    if options.budget is not None:
        rest = {path: one for path, one in candidates.items() if path not in ratios}
        allowed = options.budget * getattr(size, _SIZES[options.budget_in])
        spent = sum(candidates[path].cost * len(groups) for path, groups in chosen.items())
        chosen |= _bought(rest, order, options, vulnerability, allowed=allowed, spent=spent)
    plan = {
        path: Protection(options.method, rule, candidates[path].channels(groups))
        for path, groups in chosen.items()
        if groups
    }
    if not plan:
        raise HardeningError(f"ratio: {', '.join(options.ratios)} leaves every layer without a protected channel")
    return plan


def candidates_of(model: nn.Module, image: Tensor, options: HardeningOptions, rule: Rule) -> dict[str, Candidate]:
    """Return the layers of ``model`` that the method can protect, by module path, in the order of the calls.

    Raises:
        HardeningError: there is none; the message is that of the first layer.
    """
    layers, shapes = quantized_layers(model), output_shapes(model, image)
    taken, found, refused = protections_of(model), {}, list[str]()
    for name, shape in shapes.items():
        path = name.removesuffix(".output")
        layer = layers[path]
        if any(path.startswith(f"{other}.") or path == other for other in taken):
            continue
        if options.select == "l1" and layer.kind == "sum":
            continue  # without weights it has no norm
        why = _why_not(path, layer, shape, options, rule)
        if why is None:
            cost = _cost(layer, shape, options, rule)
            found[path] = Candidate(layer, shape, channels_together(layer) if layer.kind != "sum" else 1, cost)
        else:
            refused.append(why)
    if not found:
        raise HardeningError(refused[0] if refused else "every layer of the net is hardened already")
    return found


def ranked(
    path: str,
    candidate: Candidate,
    options: HardeningOptions,
    vulnerability: Mapping[str, LayerVulnerability] | None,
) -> list[int]:
    """Return the groups of channels of the layer at ``path``, those to be protected first first."""
    scores = _scores(path, candidate, options.select, vulnerability, seed=options.seed)
    by_group = scores.view(candidate.groups, candidate.group).double().mean(1)
    return [int(group) for group in by_group.argsort(descending=True, stable=True)]


def _why_not(
    path: str, layer: QuantizedLayer, shape: tuple[int, ...], options: HardeningOptions, rule: Rule
) -> str | None:
    """Return why the layer cannot be protected; ``None`` if it can."""
    if layer.kind == "linear" and len(shape) > 1:
        return f"{path}: has its channels last, {list(shape)}; only linear layers of vectors can be hardened"
    channels = () if options.method == "bound" else tuple(range(shape[0]))
    try:
        check_protection(path, layer, Protection(options.method, rule, channels))
    except HardeningError as error:
        return str(error)
    return None


def _cost(layer: QuantizedLayer, shape: tuple[int, ...], options: HardeningOptions, rule: Rule) -> float:
    """Return what one group of channels costs."""
    group = channels_together(layer) if layer.kind != "sum" else 1
    values, copies = math.prod(shape[1:]) * group, COPIES[options.method]
    if options.budget_in == "macs":
        return values * (copies * layer.macs_per_value + OPERATIONS.get((options.method, rule), 0) / 2)
    if options.budget_in == "activation_bytes":
        return copies * values * layer.quantization.feature_bits / 8
    if layer.kind == "sum":
        return 0.0
    norm = getattr(layer, "norm", None)
    constants = [getattr(layer, "bias", None), getattr(norm, "weight", None), getattr(norm, "bias", None)]
    return copies * group * (layer.weight[0].numel() + sum(held is not None for held in constants))


def _scores(
    path: str,
    candidate: Candidate,
    select: Selection,
    vulnerability: Mapping[str, LayerVulnerability] | None,
    *,
    seed: int,
) -> Tensor:
    """Return what each channel is ranked by ``[C]``."""
    if select == "nvf":
        # Where all channels are protected their order does not matter, and nothing was analysed.
        return torch.zeros(candidate.shape[0]) if vulnerability is None else vulnerability[path].channel_score.cpu()
    if select == "l1":
        return candidate.layer.weight.detach().abs().flatten(1).sum(1).cpu()
    return torch.rand(candidate.shape[0], generator=keyed_generator("hardening", path, seed))


def _bought(
    candidates: Mapping[str, Candidate],
    order: Mapping[str, Sequence[int]],
    options: HardeningOptions,
    vulnerability: Mapping[str, LayerVulnerability] | None,
    *,
    allowed: float,
    spent: float,
) -> Chosen:
    """Return what the budget buys of ``candidates``, the best first, what is too dear left out.

    By vulnerability the best is what removes most of it for its cost, in any layer; other selections, whose scores do
    not compare between layers, take the same share of every layer.
    """
    if spent > allowed:
        raise HardeningError(f"ratio: what is asked for costs {spent:,.0f} {options.budget_in}, of {allowed:,.0f}")
    offers = []
    for path, one in candidates.items():
        for rank, group in enumerate(order[path]):
            worth = -(rank + 0.5) / one.groups
            if options.select == "nvf" and vulnerability is not None:
                worth = _worth(one, vulnerability[path], group)
            offers.append((worth, path, group))
    chosen: Chosen = {path: [] for path in candidates}
    for _, path, group in sorted(offers, key=lambda offer: -offer[0]):
        if spent + candidates[path].cost <= allowed:
            chosen[path].append(group)
            spent += candidates[path].cost
    if candidates and not any(chosen.values()):
        raise _too_small(candidates, options, allowed)
    return chosen


def _worth(candidate: Candidate, vulnerability: LayerVulnerability, group: int) -> float:
    """Return how much vulnerability a group of channels has, over all its values and bits, for what it costs."""
    values = math.prod(candidate.shape[1:]) * vulnerability.number.bits
    score = float(vulnerability.channel_score[list(candidate.channels([group]))].sum())
    return score * values / candidate.cost if candidate.cost else math.inf


def _too_small(candidates: Mapping[str, Candidate], options: HardeningOptions, allowed: float) -> HardeningError:
    path = min(candidates, key=lambda one: candidates[one].cost)
    cost, share = candidates[path].cost, options.budget or 0.0
    return HardeningError(
        f"budget: {share:g} of the net's {options.budget_in} is {allowed:,.0f}, less than one channel: the cheapest, "
        f"of {path}, costs {cost:,.0f}; allowed is {share * cost / allowed:.2g} or more"
    )


_SIZES: Mapping[Resource, str] = {"macs": "macs", "parameters": "parameters", "activation_bytes": "activation_bytes"}
