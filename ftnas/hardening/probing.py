"""Asking a net what it answers with one wrong value in one layer, for many values in each pass.

A pass holds several copies of the images, each with its own fault, and begins at the faulty layer (see
``campaign.late_start``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ftnas.campaign.dataflow import Forward
from ftnas.campaign.late_start import Golden, LateStart
from ftnas.hardening.outputs import Output, margins, outputs_of
from ftnas.quantization import Number, quantized_layers

ROWS = 512  # images of one pass, copies counted; a ResNet-20 at 3x32x32 keeps 0.6 GB of outputs for so many


class Probe:
    """A net and a batch of images, asked again and again.

    Attributes:
        images: the batch.
        outputs: every layer's, without a fault, by module path.
        copies: how many faults one pass takes.
    """

    outputs: Mapping[str, Output]

    def __init__(self, late: LateStart, model: nn.Module, forward: Forward, images: Tensor) -> None:
        self.images = images
        self.copies = max(1, ROWS // len(images))
        with torch.no_grad():
            logits, self.outputs = outputs_of(model, forward, images)
            self._margins, self._answers = margins(logits), logits.argmax(1)
        self._golden: Golden = late.golden(images.repeat(self.copies, *[1] * (images.dim() - 1)))
        self._layers = quantized_layers(model)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._answers)

    def values(self, path: str) -> Tensor:
        """Return the fault-free output of a layer, a row for each neuron: ``[neurons, n]``."""
        return self.outputs[path].values.flatten(1).T

    def strain(self, path: str, neurons: Tensor, values: Tensor) -> Tensor:
        """Return what each wrong value does: the share of the nearest class margin that it uses up, 2 where it fails.

        Args:
            path: the layer's.
            neurons: which is wrong in each of k trials, ``[k, n]``, numbered as in ``values``.
            values: what it is instead, ``[k, n]``.

        Returns:
            ``[k, n]``: 0 to 1, and 2 where the answer changes or is no number any more.
        """
        parts = zip(neurons.split(self.copies), values.split(self.copies), strict=True)
        return torch.cat([self._pass(path, *part) for part in parts])

    def _pass(self, path: str, neurons: Tensor, values: Tensor) -> Tensor:
        layer = self._layers[path]
        call = self._golden.dataflow.layers.index(layer)
        tap = _Replacement(layer, neurons.flatten(), values.flatten())
        logits = self._golden.logits_from(call, tap)[: values.numel()].unflatten(0, values.shape)
        best = logits.gather(2, self._answers.expand(len(values), -1).unsqueeze(2))
        others = (self._answers.unsqueeze(1) + torch.arange(1, logits.shape[2], device=logits.device)) % logits.shape[2]
        ahead = best - logits.gather(2, others.expand(len(values), -1, -1))
        used = (1 - ahead / self._margins).amax(2).clamp(0, 1)
        fails = (logits.argmax(2) != self._answers) | ~logits.isfinite().all(2)
        return torch.where(fails, 2.0, used.nan_to_num(nan=1.0))


class _Replacement:
    """A tap that sets one value in each of the first images of a layer's output."""

    def __init__(self, layer: nn.Module, neurons: Tensor, values: Tensor) -> None:
        self._layer, self._neurons, self._values = layer, neurons, values

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``."""
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Put the values in."""
        if layer is self._layer:
            rows = torch.arange(len(self._neurons), device=features.device)
            where = (rows, *torch.unravel_index(self._neurons, features.shape[1:]))
            features.detach()[where] = self._values
