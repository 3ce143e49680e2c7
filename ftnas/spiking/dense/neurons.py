"""Leaky integrate-and-fire neurons, whose membranes are integers in a register.

In step t, with the current I, the leak b, the threshold h and the register's grid q:

    U[t] = q(b V[t-1] + I[t]);   S[t] = 1 if U[t] > h, else 0;   V[t] = U[t] - h S[t], or U[t] (1 - S[t])
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftnas.quantization import QuantizedLayer, snap
from ftnas.quantization.taps import skipped
from ftnas.spiking.dense.active import NeuronFaults, at, neuron_faults
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.surrogates import spike


class MembraneStep(QuantizedLayer):
    """The membrane register of a layer in one step: a fault site whose name ends in the step.

    It is written once a step, before the comparison with the threshold; what fails there may fire, and stays.
    """

    is_step = True

    def __init__(self, spec: SpikingSpec, macs_per_value: int) -> None:
        super().__init__((spec.membrane_numbers,), has_weight=False)
        self.register_buffer("feature_limit", torch.zeros(()), persistent=False)  # the range is fixed
        self._macs = macs_per_value

    @property
    def macs_per_value(self) -> int:
        """Synapses that add to one membrane in a step."""
        return self._macs

    def forward(self, charged: Tensor) -> Tensor:
        """Return ``charged`` ``[N, ...]`` as the register holds it."""
        if (known := skipped(self)) is not None:
            return known
        return self.quantized_output(charged, self.quantization)


class SpikingNeurons(nn.Module):
    """A layer of neurons ``[N, T, ...] -> [N, T, ...]``, from currents to spikes.

    Args:
        spec: the net's.
        shape: of the layer, ``[C]`` or ``[C, H, W]``.
        macs_per_value: synapses of one neuron.

    Attributes:
        threshold: of all neurons; kept at one step of the membrane's grid or more.
    """

    def __init__(self, spec: SpikingSpec, shape: tuple[int, ...], macs_per_value: int) -> None:
        super().__init__()
        self.spec, self.shape = spec, shape
        self.threshold = nn.Parameter(torch.tensor(spec.threshold), requires_grad=spec.learn_threshold)
        self.membrane = nn.ModuleList(MembraneStep(spec, macs_per_value) for _ in range(spec.steps))

    def threshold_on_grid(self) -> Tensor:
        """Return the threshold as a code's value, at least one step of the grid; the gradient passes."""
        return snap(self.threshold.clamp_min(self.spec.membrane_step), self._register(0).feature_number())

    def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """Return spikes ``[N, T, ...]`` and the membranes after the last step, in thresholds, ``[N, ...]``."""
        faults, threshold = neuron_faults(self), self.threshold_on_grid()
        state = self._at_rest(currents[:, 0], self.spec.initial * threshold, faults)
        spikes = []
        for step in range(self.spec.steps):
            fired, state = self._advance(currents[:, step], state, threshold, faults, step)
            spikes.append(fired)
        return torch.stack(spikes, 1), state.membrane / threshold

    def _at_rest(self, like: Tensor, membrane: Tensor, faults: NeuronFaults) -> _State:
        """Return what neurons remember before the first step; what no neuron needs to remember is left out."""
        none = torch.zeros_like(like, dtype=torch.int32)
        waits = self.spec.refractory > 0 or faults.refractory is not None
        guards = self.spec.reset_guard is not None
        return _State(membrane.expand_as(like), none if waits else None, none if guards else None)

    def _advance(
        self, current: Tensor, before: _State, threshold: Tensor, faults: NeuronFaults, step: int
    ) -> tuple[Tensor, _State]:
        """Return the spikes of one step and what the neurons remember of it."""
        height, leak = _times(threshold, at(faults.threshold, step)), _times(self.spec.leak, at(faults.leak, step))
        waits = None if before.waiting is None else before.waiting > 0
        charged = _unless(waits, torch.addcmul(current, before.membrane, leak), before.membrane)
        membrane = _held(self._register(step)(charged), at(faults.stuck, step))
        fired = spike(membrane - height, surrogate=self.spec.surrogate, slope=self.spec.slope)
        fired = self._allowed(fired, waits, before, faults, step)
        # The spike in the reset is a constant: its surrogate gradient there makes training worse, not better.
        emptied = self._reset(membrane, fired.detach(), height)
        after = _held(_unless(at(faults.unreset, step), emptied, membrane), at(faults.stuck, step))
        return fired, self._remembered(after, fired, before, height, at(faults.refractory, step))

    def _allowed(self, fired: Tensor, waits: Tensor | None, before: _State, faults: NeuronFaults, step: int) -> Tensor:
        silent, firing = at(faults.silent, step), at(faults.firing, step)
        for mute in (waits, silent):
            fired = fired if mute is None else fired.masked_fill(mute, 0.0)
        if firing is not None:
            fired = fired.masked_fill(firing, 1.0)
        if before.unreset is None:
            return fired
        return fired.masked_fill(before.unreset >= (self.spec.reset_guard or 0), 0.0)

    def _reset(self, membrane: Tensor, fired: Tensor, threshold: Tensor) -> Tensor:
        if self.spec.reset == "subtract":
            return torch.addcmul(membrane, fired, threshold, value=-1)
        return membrane * (1 - fired)

    def _remembered(
        self, after: Tensor, fired: Tensor, before: _State, threshold: Tensor, longer: Tensor | None
    ) -> _State:
        waiting, unreset = before.waiting, before.unreset
        if waiting is not None:
            period = self.spec.refractory if longer is None else longer + self.spec.refractory
            waiting = torch.where(fired.detach() > 0, period, (waiting - 1).clamp_min(0))
        if unreset is not None:
            unreset = torch.where(after.detach() >= threshold, unreset + 1, 0)
        return _State(after, waiting, unreset)

    def _register(self, step: int) -> MembraneStep:
        register = self.membrane[step]
        assert isinstance(register, MembraneStep)
        return register


@dataclass(frozen=True)
class _State:
    """What neurons ``[N, ...]`` remember: membranes, steps still to wait, and resets running that did not help."""

    membrane: Tensor
    waiting: Tensor | None
    unreset: Tensor | None


def _times(value: Tensor | float, factor: Tensor | None) -> Tensor:
    return torch.as_tensor(value) if factor is None else value * factor


def _held(membrane: Tensor, stuck: Tensor | None) -> Tensor:
    return membrane if stuck is None else torch.where(stuck.isnan(), membrane, stuck)


def _unless(chosen: Tensor | None, usual: Tensor, other: Tensor) -> Tensor:
    return usual if chosen is None else torch.where(chosen, other, usual)
