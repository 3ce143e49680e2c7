"""How the class margins of each image move with the output of every layer, by one backward pass a class for all layers.

A plain gradient misses the worst flips of signed codes: behind a ReLU a negative value has none, though its sign bit
makes it large. So the gradient is taken behind the rectifiers that read an output, and a flip enters as what they make
of it: ``f(v') - f(v)`` for each reader f, which is exact up to there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from ftnas.campaign.dataflow import Forward
from ftnas.hardening.outputs import Output, margins, outputs_of
from ftnas.hardening.readers import LINEAR, Consumers, Ends, Node, consumers, readers
from ftnas.quantization import Number

Slopes: TypeAlias = tuple[Tensor, ...]  # of one margin, one tensor [n, C, ...] for each reader


@dataclass
class SiteSlopes:
    """What the margins of one batch do at one layer's output.

    Attributes:
        values: of the output, ``[n, C, ...]``.
        number: its format.
        ends: the different ways in which the output is read, at least one.
        slopes: ``m'/m`` of margins m. A deviation from v to v' changes the answer, to first order, if for one of them
            the sum over readers f of ``slope * (f(v') - f(v))`` is below -1. With one reader two stand for all
            margins: the largest and the smallest.
    """

    values: Tensor
    number: Number
    ends: tuple[Ends, ...]
    slopes: list[Slopes] = field(default_factory=list)

    def strain(self, faulty: Tensor) -> Tensor:
        """Return the share of the nearest margin that ``faulty`` ``[n, C, ...]`` uses up; above 1, it is crossed."""
        moves = [faulty.clamp(*ends) - self.values.clamp(*ends) for ends in self.ends]
        worst = torch.zeros_like(self.values)
        for slopes in self.slopes:
            change = slopes[0] * moves[0]
            for slope, move in zip(slopes[1:], moves[1:], strict=True):
                change += slope * move
            torch.maximum(worst, change.neg_(), out=worst)
        return worst.nan_to_num_(nan=math.inf)

    def take(self, slopes: Slopes) -> None:
        """Add the slopes of one more margin."""
        if len(slopes) > 1:
            self.slopes.append(slopes)
        elif not self.slopes:
            self.slopes = [(slopes[0].clone(),), (slopes[0].clone(),)]
        else:
            (high,), (low,) = self.slopes
            torch.maximum(high, slopes[0], out=high)
            torch.minimum(low, slopes[0], out=low)


def site_slopes(model: nn.Module, forward: Forward, images: Tensor) -> Mapping[str, SiteSlopes]:
    """Return the slopes at every layer's output for ``images`` ``[n, ...]``, by module path in the order of the calls.

    Raises:
        HardeningError: a layer runs more than once in a forward pass.
    """
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        logits, outputs = outputs_of(model, forward, x)
        columns = margins(logits).unbind(1)
    graph = consumers(columns[0].grad_fn)
    with ExitStack() as hooks:
        watches = {path: _Watch(output, graph, hooks) for path, output in outputs.items()}
        edges = [GradientEdge(output.node, output.index) for output in outputs.values()]
        for margin in columns:
            gradients = torch.autograd.grad(margin.sum(), edges, retain_graph=True, allow_unused=True)
            for watch, gradient in zip(watches.values(), gradients, strict=True):
                watch.finish(margin.detach(), gradient)
    return {path: watch.site for path, watch in watches.items()}


class _Watch:
    """Turns each backward pass into slopes at one output, by hooks at the rectifiers that read it.

    They are taken off with ``hooks``: a graph that is watched by what holds its nodes is never freed.
    """

    def __init__(self, output: Output, graph: Consumers, hooks: ExitStack) -> None:
        self._rectifiers, others = readers(output.node, graph)
        ends = sorted({reader.ends for reader in self._rectifiers})
        self._others = others or not ends
        self.site = SiteSlopes(output.values, output.number, tuple(ends) + ((LINEAR,) if self._others else ()))
        self._seen: dict[Node, tuple[Tensor, Tensor]] = {}
        for node in {reader.node for reader in self._rectifiers}:
            hooks.callback(node.register_hook(partial(self._keep, node)).remove)

    def finish(self, margin: Tensor, gradient: Tensor | None) -> None:
        """Turn the backward pass of ``margin`` ``[n]`` into slopes; ``gradient`` is its own at the output."""
        sums = {ends: torch.zeros_like(self.site.values) for ends in self.site.ends}
        rest = gradient
        for reader in self._rectifiers:
            if reader.node in self._seen:
                behind, before = self._seen[reader.node]
                sums[reader.ends] += reader.pulled(behind)
                if rest is not None and self._others:
                    rest = rest - reader.pulled(before)
        if rest is not None and self._others:
            sums[LINEAR] += rest
        shaped = margin.view(-1, *[1] * (self.site.values.dim() - 1))
        self.site.take(tuple(slopes / shaped for slopes in sums.values()))
        self._seen = {}

    def _keep(self, node: Node, before: tuple[Tensor, ...], behind: tuple[Tensor, ...]) -> None:
        self._seen[node] = (behind[0], before[0])
