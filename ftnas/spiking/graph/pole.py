"""Balancing a pole on a cart, as Barto, Sutton and Anderson (1983) describe it: force to the left or to the right.

The equations are those of frictionless cart and pole, advanced by Euler's method in steps of 20 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import radians

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.errors import SpikingError
from ftnas.runtime import keyed_generator
from ftnas.spiking.graph.batch import NetworkBatch
from ftnas.spiking.graph.encoding import Encoding, encoded, spike_numbers, spikes_of
from ftnas.spiking.graph.simulator import answers, spike_counts

Doubles = NDArray[np.float64]

GRAVITY, CART, POLE, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, m
FORCE, SECONDS = 10.0, 0.02
TRACK, TILT = 2.4, radians(12)  # where an episode ends
# Position, speed, tilt and its speed at which a feature reaches the end of its range.
RANGE = np.array([TRACK, 3.0, TILT, 3.0])
EPISODES: Mapping[str, int] = {"train": 10, "test": 50}


@dataclass(frozen=True)
class PoleBalancing:
    """Episodes from small random states, each of at most ``longest`` steps; the score is the share that was balanced.

    In every step the net starts from rest, gets the state as spikes, and pushes as its output that fires most says.
    """

    name: str
    encoding: Encoding
    longest: int = 200

    inputs = 8
    outputs = 2

    def scores(self, batch: NetworkBatch, split: str) -> Doubles:
        """Return the mean share of the steps for which each net keeps pole and cart within bounds, ``[nets]``."""
        starts = starting_states(split)
        states = np.repeat(starts[None], batch.nets, axis=0)
        alive = np.ones(states.shape[:2], bool)
        balanced = np.zeros(states.shape[:2])
        for step in range(self.longest):
            # Noise of events is drawn anew in every step, and not that of the net's first 24 steps again.
            now = replace(batch, study=f"{batch.study} {step}") if batch.noise.any() else batch
            states = moved(states, self._pushes(now, states))
            alive &= within(states)
            balanced += alive
            if not alive.any():
                break
        return np.asarray(balanced.mean(axis=1) / self.longest)

    def _pushes(self, batch: NetworkBatch, states: Doubles) -> NDArray[np.int64]:
        """Return 0 (left) or 1 (right) for each net and episode, ``[nets, episodes]``."""
        numbers = spike_numbers(np.clip(states / RANGE, -1, 1), self.encoding)
        by_net = numbers.transpose(0, 2, 1).reshape(-1, states.shape[1])
        return answers(spike_counts(batch, spikes_of(by_net, self.encoding)))

    def example(self, number: int) -> NDArray[np.float32]:
        """Return the spikes ``[steps, inputs]`` that the first state of a test episode gives.

        Raises:
            SpikingError: there are not so many.
        """
        starts = starting_states("test")
        if not 0 <= number < len(starts):
            raise SpikingError(f"sample {number}: {self.name} has test episodes 0 to {len(starts) - 1}")
        return encoded(starts[number : number + 1] / RANGE, self.encoding)[:, :, 0]


def starting_states(split: str) -> Doubles:
    """Return the states ``[episodes, 4]`` in which episodes begin, uniform in -0.05 to 0.05, the same in every run."""
    rng = keyed_generator("spiking task", "pole balancing", split)
    return (torch.rand(EPISODES[split], 4, generator=rng, dtype=torch.float64).numpy() - 0.5) / 10


def moved(states: Doubles, pushes: NDArray[np.int64]) -> Doubles:
    """Return the states ``[..., 4]`` (position, speed, tilt, its speed) one step after ``pushes`` ``[...]``, 0 or 1."""
    _, speed, tilt, turning = np.moveaxis(states, -1, 0)
    force = np.where(pushes == 1, FORCE, -FORCE)
    mass = CART + POLE
    pushed = (force + POLE * HALF_LENGTH * turning**2 * np.sin(tilt)) / mass
    inertia = HALF_LENGTH * (4 / 3 - POLE * np.cos(tilt) ** 2 / mass)
    turning_faster = (GRAVITY * np.sin(tilt) - np.cos(tilt) * pushed) / inertia
    faster = pushed - POLE * HALF_LENGTH * turning_faster * np.cos(tilt) / mass
    changes = np.stack([speed, faster, turning, turning_faster], axis=-1)
    return np.asarray(states + SECONDS * changes)


def within(states: Doubles) -> NDArray[np.bool_]:
    """Return whether cart and pole are within bounds, for states ``[..., 4]``."""
    return np.asarray((np.abs(states[..., 0]) <= TRACK) & (np.abs(states[..., 2]) <= TILT))
