"""Spiking graphs against snntorch, with the same weights, and the benchmark that compares their speed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnas.spiking.graph.batch import batch_of
from ftnas.spiking.graph.simulator import spike_counts

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    pytest.importorskip("snntorch")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return import_module("spiking")


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([(4, 2), (5, 4, 3)]), st.integers(1, 60))
def test_layers_fire_as_in_snntorch(benchmark: ModuleType, seed: int, sizes: tuple[int, ...], threshold: int):
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    net = benchmark.Layers(tuple(rng.integers(-40, 60, shape) for shape in shapes), threshold)
    spikes = (rng.random((16, sizes[0], 7)) < 0.5).astype(np.float32)
    expected = net.in_snntorch()(torch.from_numpy(spikes.transpose(0, 2, 1).copy())).numpy().T
    assert (spike_counts(batch_of([net.genome()], benchmark.PROCESSOR), spikes)[0] == expected).all()


def test_events_are_spikes_times_the_synapses_that_they_go_over(benchmark: ModuleType):
    net = benchmark.Layers((np.array([[5, 5], [5, 0]]), np.array([[1, 1]])), 5)
    spikes = np.zeros((4, 2, 1), np.float32)
    spikes[0] = 1
    # The first input has two synapses, the second one; each then makes its targets fire once, over a synapse each.
    assert benchmark.events(batch_of([net.genome()], benchmark.PROCESSOR), spikes) == 2 + 1 + 2


@pytest.mark.slow
def test_the_benchmark_of_spiking_graphs_prints_a_verdict_for_every_goal():
    command = [sys.executable, str(FOLDER / "spiking.py"), "--repeats", "1", "--generations", "2"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.count(" met ") + text.count(" missed ") == 3
