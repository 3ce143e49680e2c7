"""Late start: layers before the first faulty one return what the fault-free pass computed, so they cost nothing.

Bit-identical to the whole forward pass (the idea is InjectTF2's and SCI-FI's). Three things make it exact: cached
tensors are lent, and copied first where the model edits them in place; where no computing layer reads an output any
more, a tensor without values takes its place (see ``blanks``), so that activations in between cost nothing either;
and every start is tried without a fault, on a few images, before anything is measured.

Memory: the outputs of all layers for one batch, float32 (147 MB for ResNet-20 and 128 images of 3x32x32).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftnas.campaign.blanks import Blank, blank_like
from ftnas.campaign.dataflow import Dataflow, Forward, watch
from ftnas.errors import CampaignError
from ftnas.quantization import Number, Tap, tapped

PROBE_IMAGES = 2


class LateStart:
    """How the forward passes of one model go; threads may share it."""

    def __init__(self, forward: Forward, example: Tensor) -> None:
        """Watch one pass of the first images of ``example`` ``[N, ...]``, and try every start.

        Raises:
            CampaignError: the model's output does not follow from its input, or its layers mix quantisations.
        """
        self._forward = forward
        self._dataflow = watch(forward, example[:PROBE_IMAGES])
        golden = self.golden(example[:PROBE_IMAGES])
        golden.check()
        self._dataflow = golden.dataflow

    def golden(self, x: Tensor) -> Golden:
        """Return the fault-free pass of a batch ``x`` ``[N, ...]``."""
        return Golden(self._forward, x, self._dataflow)


class Golden:
    """The fault-free pass of one batch, from which faulty ones start.

    Attributes:
        logits: what it returned, ``[N, K]``.
        dataflow: of this batch, which may go another way than others.
    """

    logits: Tensor
    dataflow: Dataflow

    def __init__(self, forward: Forward, x: Tensor, dataflow: Dataflow) -> None:
        self._forward, self._x = forward, x
        self._record(dataflow)

    def logits_with(self, tap: Tap, layer: nn.Module) -> Tensor:
        """Return the logits ``[N, K]`` with the faults of ``tap``, all of them in the weight of ``layer``."""
        calls = [call for call, called in enumerate(self.dataflow.layers) if called is layer]
        return self.logits_from(calls[0], tap) if calls else self.logits

    def logits_from(self, start: int, tap: Tap) -> Tensor:
        """Return the logits ``[N, K]`` with the faults of ``tap``, of which none is before call ``start``."""
        try:
            logits = self._run(start, tap)
        except Exception:
            # Under a fault a model may read what it did not read without one: then every output needs its values.
            if not self.dataflow.may_lack_values:
                raise
            logits = None
        if logits is None or isinstance(logits, Blank):
            self.dataflow = self.dataflow.with_all_values()
            logits = self._run(start, tap)
        if changed := self._changed():
            self._record(self.dataflow.with_edited(changed))
        return logits

    def check(self) -> None:
        """Try every start without a fault.

        Raises:
            CampaignError: a result is not that of the whole pass.
        """
        starts = range(len(self.dataflow.layers) + 1)
        if not all(map(self._is_right, starts)):
            # An extension that torch does not see may have read what seemed to need no values.
            self.dataflow = self.dataflow.with_all_values()
            if not all(map(self._is_right, starts)):
                raise CampaignError(
                    "the model answers the same images in two ways, so faults cannot be told from chance; does it "
                    "draw random numbers in evaluation mode?"
                )

    def _is_right(self, start: int) -> bool:
        return _same_bits(self.logits_from(start, _Clean()), self.logits)

    def lend(self, call: int, layer: nn.Module, start: int) -> Tensor:
        """Return what ``layer`` returned in ``call``, without values where nothing from ``start`` on reads them."""
        if self.dataflow.layers[call] is not layer:
            raise CampaignError(f"{type(layer).__name__}: the model's layers run in another order than a moment ago")
        if self.dataflow.needed_until[call] < start:
            return self._blanks[call]
        return self._outputs[call].clone() if call in self.dataflow.edited else self._outputs[call]

    def _run(self, start: int, tap: Tap) -> Tensor:
        with torch.no_grad(), tapped(_Late(self, start, tap)):
            return self._forward(self._x)

    def _record(self, dataflow: Dataflow) -> None:
        """Run until every output that the model edits was copied before that."""
        while True:
            recorder = _Recorder(dataflow.edited)
            with torch.no_grad(), tapped(recorder):
                self.logits = self._forward(self._x)
            self._outputs, self._versions = recorder.outputs, recorder.versions
            self._blanks = [blank_like(output) for output in self._outputs]
            self.dataflow = dataflow = dataflow.of_layers(tuple(recorder.layers))
            if not (changed := self._changed()):
                return
            dataflow = dataflow.with_edited(changed)

    def _changed(self) -> list[int]:
        pairs = zip(self._outputs, self._versions, strict=True)
        return [call for call, (output, version) in enumerate(pairs) if output._version != version]


class _Clean:
    """A tap that changes nothing."""

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``."""
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Leave ``features`` alone."""


class _Recorder(_Clean):
    """Keeps what every layer returns: the tensor itself, or a copy where the model will edit it."""

    def __init__(self, edited: frozenset[int]) -> None:
        self.layers: list[nn.Module] = []
        self.outputs: list[Tensor] = []
        self.versions: list[int] = []
        self._edited = edited

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Keep ``features``."""
        kept = features.clone() if len(self.layers) in self._edited else features
        self.layers.append(layer)
        self.outputs.append(kept)
        self.versions.append(kept._version)


class _Late:
    """A tap under which layers before call ``start`` do not compute, and the others meet the faults of ``tap``."""

    def __init__(self, golden: Golden, start: int, tap: Tap) -> None:
        self.weight, self.output = tap.weight, tap.output
        self._golden, self._start = golden, start
        self._calls = 0

    def skip(self, layer: nn.Module) -> Tensor | None:
        """Return the output of ``layer`` without faults while no fault can have been met."""
        call, self._calls = self._calls, self._calls + 1
        return self._golden.lend(call, layer, self._start) if call < self._start else None


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, where NaN equals NaN."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
