"""What every layer of a net puts out for a batch, and how far the answer is ahead of the other classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from ftnas.campaign.dataflow import Forward
from ftnas.errors import HardeningError
from ftnas.faults.sites import layer_paths
from ftnas.hardening.readers import Node
from ftnas.quantization import Number, tapped


@dataclass(frozen=True)
class Output:
    """A layer's output in one pass.

    Attributes:
        values: ``[n, C, ...]``.
        number: their format.
        node: where autograd made them; ``None`` in a pass without gradients.
        index: which result of ``node`` they are.
    """

    values: Tensor
    number: Number
    node: Node
    index: int


def outputs_of(model: nn.Module, forward: Forward, x: Tensor) -> tuple[Tensor, Mapping[str, Output]]:
    """Return the logits ``[n, K]`` of images ``x`` and every layer's output by module path, in the order of the calls.

    Args:
        model: owns the layers.
        forward: a pass through it.
        x: the images.

    Raises:
        HardeningError: a layer runs more than once in a forward pass.
    """
    recorder = _Recorder(model)
    with tapped(recorder):
        logits = forward(x)
    return logits, recorder.outputs


class _Recorder:
    """A tap that keeps every output."""

    def __init__(self, model: nn.Module) -> None:
        self.outputs: dict[str, Output] = {}
        self._paths = layer_paths(model)

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``, of which no gradient is asked for."""
        return weight.detach()

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Keep ``features``."""
        path = self._paths[layer]
        if path in self.outputs:
            raise HardeningError(f"{path}: runs more than once in a forward pass; such a net cannot be analysed")
        values = features.detach().clone()
        if not torch.is_grad_enabled():
            self.outputs[path] = Output(values, number, None, 0)
            return
        if not features.requires_grad:
            # It depends on no image, as behind a node of a cell without operators: autograd's graph begins here.
            features.requires_grad_()
        edge = get_gradient_edge(features)
        self.outputs[path] = Output(values, number, edge.node, edge.output_nr)


def margins(logits: Tensor) -> Tensor:
    """Return how far the answer of each image is ahead of each other class, ``[n, K - 1]``, always above 0.

    Logits lie on a grid and are often equal. The class with the lower number wins then, so a tie counts as half of the
    grid's step, for the answer or against it. The step is the smallest difference between two logits of the batch.
    """
    answers, classes = logits.argmax(1, keepdim=True), logits.shape[1]
    others = (answers + torch.arange(1, classes, device=logits.device)) % classes
    ahead = logits.gather(1, answers) - logits.gather(1, others)
    half = 0.5 * _smallest_step(logits.detach())
    return (ahead + torch.where(others > answers, half, -half)).clamp_min(half)


def _smallest_step(logits: Tensor) -> float:
    steps = logits.flatten().unique().diff()
    return max(float(steps.min()) if len(steps) else 0.0, torch.finfo(logits.dtype).tiny)
