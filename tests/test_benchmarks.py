"""The benchmarks: that they measure right, and that they run; what they measure is not judged here."""

from __future__ import annotations

import itertools
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ftnas.campaign import Interval, Population

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return import_module("timing")


@pytest.fixture
def uncertainty(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return import_module("uncertainty")


def printed(script: str, *options: str) -> str:
    command = [sys.executable, str(FOLDER / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_only_the_second_run_of_a_variant_is_timed_and_it_starts_without_garbage(timing, monkeypatch):
    ticks, done = itertools.count(), []

    def clock():
        done.append("clock")
        return float(next(ticks))

    monkeypatch.setattr(timing.gc, "collect", lambda: done.append("collect"))
    variants = {"one": [lambda: done.append("one")], "two": [lambda: done.append("two")]}
    seconds = timing.measure(variants, rounds=2, clock=clock)
    turns = [[name, "collect", "clock", name, "clock"] for name in ("one", "two")]
    assert done == 2 * [*turns[0], *turns[1]]
    assert seconds == {"one": [1.0, 1.0], "two": [1.0, 1.0]}


def test_a_ratio_is_the_median_over_rounds_and_not_that_of_the_fastest(timing):
    seconds = {"ours": [1.0, 3.0, 8.0], "theirs": [1.0, 2.0, 2.0]}
    assert timing.Goal("what", "ours", 1.6, "theirs").row(seconds)[3:] == ("1.50", "1.6", "met")
    assert timing.Goal("what", "ours", 1.4, "theirs").row(seconds)[3:] == ("1.50", "1.4", "missed")


def test_seconds_are_those_of_the_fastest_round(timing):
    assert timing.Goal("what", "ours", 2.0).row({"ours": [3.0, 2.5]}) == ("what", "2500.0", "", "2.50", "2", "missed")


def test_without_a_limit_there_is_no_verdict(timing):
    assert timing.verdict(1.0, None) == ("", "")


def test_a_share_that_is_to_be_large_is_met_from_its_limit_on(timing):
    assert timing.verdict(0.93, 0.93, at_least=True)[1] == "met"
    assert timing.verdict(0.92, 0.93, at_least=True)[1] == "missed"


def test_random_sampling_needs_as_many_faults_as_itself(uncertainty):
    truth = uncertainty.Truth(Population((("a", 500, 8),)), np.random.default_rng(0).exponential(size=4000))
    means = [truth.shares[sample].mean() for sample in uncertainty.draw_samples(truth, 200, 1000)]
    assert uncertainty.share_needed(truth, means, 200) == pytest.approx(1, abs=0.15)


def test_only_intervals_with_the_truth_between_their_ends_hold_it(uncertainty):
    intervals = [Interval(low, low + 2.0, 0.95, "") for low in (0.0, 1.0, 2.0, 3.5)]
    assert uncertainty.holds(intervals, 3.0) == 0.5


def test_the_same_chips_count_for_as_much_as_two_measurements_share(uncertainty):
    common, one, other = np.random.default_rng(0).normal(size=(3, 100_000))
    assert uncertainty.shared_variance(one, other) == pytest.approx(1, abs=0.02)
    assert uncertainty.shared_variance(common + one, common + other) == pytest.approx(0.5, abs=0.02)


def test_a_campaign_by_strata_weighs_them_by_their_size(uncertainty):
    shares = np.tile([0.0, 0.0, 0.0, 0.8], 100)  # of 4 bits the highest matters
    truth = uncertainty.Truth(Population((("a", 100, 4),)), shares)
    parts = list(uncertainty.stratified(truth, "bit", "neyman", 100, 0))
    assert [size for size, _ in parts] == [100] * 4
    assert sum(len(drawn) for _, drawn in parts) == 100
    assert [drawn.mean() for _, drawn in parts] == pytest.approx([0.0, 0.0, 0.0, 0.8])


@pytest.mark.slow
def test_the_benchmark_of_steps_prints_a_verdict_for_every_goal():
    text = printed("steps.py", "--repeats", "1")
    assert text.count("met") + text.count("missed") >= 7


@pytest.mark.slow
def test_the_benchmark_of_faults_prints_a_verdict_for_every_goal():
    text = printed("faults.py", "--repeats", "1", "--batch", "2", "--only", "drawn", "listed", "single", "float")
    assert text.count(" met ") + text.count(" missed ") == 7
    assert text.count("plain float32") >= 3


@pytest.mark.slow
def test_the_benchmark_of_uncertainty_prints_the_same_from_its_cache(tmp_path):
    options = ["--only", "converted", "--images", "50", "--campaigns", "20", "--chips", "9", "--cache", str(tmp_path)]
    first, second = (printed("uncertainty.py", *options) for _ in range(2))
    assert first.count(" met ") + first.count(" missed ") == 14
    assert first == second
    assert len(list(tmp_path.iterdir())) == 1


def test_the_ranking_of_nets_follows_the_accuracy_on_faulty_chips(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    ranking = import_module("vulnerability")
    rates = [f"{rate:g}" for rate in ranking.RATES]

    def net(number):
        """The more accurate, the fewer flips matter; clean accuracy goes the other way."""
        test = {rate: [0.1 * number] * ranking.CHIPS for rate in rates}
        factors = {"max_lvf": 0.1 * number, "mean_cvf": 0.5 / (1 + number), "expected": 90.0 - number}
        one_chip = dict.fromkeys(rates, 0.1 * number)
        return {"factors": factors, "clean": 1 - 0.1 * number, "one chip": one_chip, "test": test}

    rows = ranking._correlations([net(number) for number in range(8)])["rows"]
    found = {row["predictor"]: round(row["kendall"]["value"], 9) for row in rows if row["rate"] == rates[0]}
    assert found["- mean_cvf"] == found["- expected"] == found["accuracy on one faulty chip"] == 1
    assert found["- max_lvf"] == found["accuracy without faults"] == -1


def test_tf32_rounds_factors_to_11_bits_forward_and_backward(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    tf32 = import_module("tf32")
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 6, 6, generator=draw), torch.randn(4, 3, 3, 3, generator=draw)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    rounded = [tf32.to_tf32(factor) for factor in (x, weight)]
    assert all(torch.equal(tf32.to_tf32(factor), factor) for factor in rounded)
    assert ((rounded[0] - x).abs() <= x.abs() * 2.0**-11).all()
    with tf32.Tf32():
        y = torch.nn.functional.conv2d(x, weight, padding=1)
        gradient = torch.autograd.grad(y.square().sum(), x)[0]
    assert torch.equal(y, torch.nn.functional.conv2d(*rounded, padding=1))
    back = torch.nn.functional.conv_transpose2d(tf32.to_tf32(2 * y.detach()), rounded[1], padding=1)
    torch.testing.assert_close(gradient, back)
    plain = torch.nn.functional.conv2d(x, weight, padding=1)
    assert not torch.equal(y, plain)
