"""Campaigns of single faults: each record is that of a whole pass, and as many faults as asked for, fairly drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from campaign_support import IMAGES, calibrated, data, fingerprint, lines
from small_nets import SmallNet
from torch import Tensor, nn

from ftnas.campaign import Shard, SingleResult, layer_bit_rows, layer_rows, population_of, run_single, sample_size
from ftnas.campaign.outcomes import Outcomes, outcomes
from ftnas.errors import CampaignError, FtnasError
from ftnas.faults import Flip, explicit_plan, expose, inject, sites
from ftnas.quantization import QuantizedConv2d, QuantizedLinear
from ftnas.runtime import seeded

KINDS = ("flip", "stuck_at_0", "stuck_at_1")


class Tiny(nn.Module):
    """A net of 42 weights: ``[N, 1, 8, 8] -> [N, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = QuantizedConv2d(1, 2, 1, norm="none"), QuantizedLinear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        logits: Tensor = self.head(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))
        return logits


@cache
def tiny() -> Tiny:
    with seeded("tiny"), torch.no_grad():
        model = Tiny()
        model(data()[0])
    return model.eval()


def of_full_pass(model: nn.Module, unit: Mapping[str, Any], golden: Tensor) -> tuple[Outcomes, bool]:
    """Return the outcomes of a record's fault, by injection, and whether it changed a code."""
    flip = Flip(unit["site"], unit["element"], unit["bit"], unit["kind"])
    with torch.no_grad(), inject(model, explicit_plan(model, [flip])) as injection:
        faulty = model(data()[0])
    found = outcomes(golden.numpy(), faulty.numpy(), data()[1].numpy())
    return found, injection.counts[flip.site].effective > 0


# What is measured


@pytest.mark.parametrize("word", [None, "float32", "float16"])
def test_every_record_is_that_of_a_whole_pass(word: Any) -> None:
    model = calibrated() if word is None else expose(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), word=word)
    result = run_single(model, data(), n=90, kinds=KINDS, batch_size=IMAGES)
    with torch.no_grad():
        golden = model(data()[0])
    for unit in result.units:
        found, effective = of_full_pass(model, unit, golden)
        assert (unit["images"], unit["effective"]) == (found.to_dict(), effective)
    assert len({unit["site"] for unit in result.units}) == (3 if word is None else 1)
    assert {unit["kind"] for unit in result.units} == set(KINDS)


def test_batches_add_up() -> None:
    whole, parts = (run_single(calibrated(), data(), n=30, batch_size=size) for size in (IMAGES, 7))
    assert all(unit["images"]["images"] == IMAGES for unit in parts.units)
    same = [one["images"] == other["images"] for one, other in zip(whole.units, parts.units, strict=True)]
    assert np.mean(same) > 0.9  # logits round differently in other batches, which may change who is masked


def test_a_bit_stuck_at_what_it_is_changes_nothing_and_costs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    original = Tiny.forward
    monkeypatch.setattr(Tiny, "forward", lambda self, x: passes.append(1) or original(self, x))
    result = run_single(tiny(), data(), exhaustive=True, kinds=("stuck_at_0", "stuck_at_1"))
    assert result.network is not None
    assert result.network.injected == 2 * result.network.ineffective == 2 * 42 * 8
    assert all(unit["images"]["masked"] == IMAGES for unit in result.units if not unit["effective"])
    assert len(passes) < 42 * 8 + 80


def test_a_float_word_can_end_in_no_answer() -> None:
    linear = nn.Linear(64, 10)
    with seeded("between 1 and 2"), torch.no_grad():
        linear.weight.uniform_(1.1, 1.9)  # a flip of the exponent's highest bit makes these not a number
    result = run_single(expose(nn.Sequential(nn.Flatten(), linear)), data(), n=200, by="bit")
    assert result.network is not None
    dues = [found.shares["due"].mean for found in result.strata]
    assert [bit for bit, share in enumerate(dues) if share] == [30]
    changed, sdc1, due = (result.network.shares[name].mean for name in ("changed", "sdc1", "due"))
    assert changed == pytest.approx(sdc1 + due)
    assert due > 0


# Which faults


def names(result: SingleResult) -> list[str]:
    return [unit["unit"] for unit in result.units]


def test_exhaustive_means_every_fault_once_and_no_doubt_is_left() -> None:
    result = run_single(tiny(), data(), exhaustive=True, by="layer_bit")
    expected = {(s.name, e, b) for s in sites(tiny(), "*.weight") for e in range(s.values) for b in range(8)}
    assert Counter((u["site"], u["element"], u["bit"]) for u in result.units) == Counter(expected)
    assert result.network is not None
    mean = np.mean([Outcomes(**unit["images"]).share("changed") for unit in result.units])
    for found in (*result.strata, result.network):
        changed = found.shares["changed"]
        assert changed.interval.low == pytest.approx(changed.mean) == changed.interval.high
        assert found.injected == found.stratum.size
    assert result.network.shares["changed"].mean == pytest.approx(mean)


@pytest.mark.parametrize("by", ["network", "layer", "bit", "layer_bit"])
@pytest.mark.parametrize("allocation", ["neyman", "proportional"])
def test_n_faults_are_injected_each_once(by: Any, allocation: Any) -> None:
    result = run_single(tiny(), data(), n=70, by=by, allocation=allocation)
    assert len(set(names(result))) == len(names(result)) == 70
    assert sum(found.injected for found in result.strata) == 70
    assert len(result.strata) == len(population_of(tiny()).strata(by))
    assert all(found.injected >= 2 for found in result.strata)


def test_faults_are_drawn_in_proportion_to_bits_not_to_layers() -> None:
    result = run_single(calibrated(), data(), n=150)
    small = sum(unit["site"] == "first.weight" for unit in result.units)
    share = 36 / sum(site.values for site in sites(calibrated(), "*.weight"))
    assert small == pytest.approx(150 * share, abs=3 * np.sqrt(150 * share))


def test_a_larger_sample_holds_the_smaller_and_another_study_draws_others() -> None:
    few, many = (run_single(tiny(), data(), n=n) for n in (20, 60))
    assert names(many)[:20] == names(few)
    assert names(run_single(tiny(), data(), n=20, study="other")) != names(few)


@pytest.mark.parametrize("by", ["bit", "layer_bit"])
def test_by_bit_more_faults_go_to_where_a_bit_is_worth_more_and_none_is_a_pilot(by: Any) -> None:
    result = run_single(calibrated(), data(), n=400, by=by)
    assert result.allocation == "bits"
    ordered = [found for found in result.strata if found.stratum.site in (None, "classifier.weight")]
    injected = [found.injected for found in ordered]
    assert injected == sorted(injected)
    assert injected[7] == pytest.approx(2 * injected[6], abs=3)
    assert injected[0] == min(10, 400 // (2 * len(result.strata)))
    for found in result.strata:  # every fault counts alike
        units = [unit["images"] for unit in result.units if unit["bit"] == found.stratum.bit]
        if by == "bit":
            mean = np.mean([(images["sdc1"] + images["due"]) / images["images"] for images in units])
            assert found.shares["changed"].mean == pytest.approx(mean)


def test_bits_of_float_words_are_not_weighed_by_their_place() -> None:
    words = expose(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), word="float16")
    assert run_single(words, data(), n=100, by="bit").allocation == "neyman"
    with pytest.raises(CampaignError, match="'bits' needs integer weights"):
        run_single(words, data(), n=100, by="bit", allocation="bits")


def test_neyman_gives_more_faults_to_where_they_differ_more() -> None:
    result = run_single(calibrated(), data(), n=300, by="bit", pilot=12)
    injected = [found.injected for found in result.strata]
    assert min(injected) >= 12
    deviation = [np.std([u["images"]["sdc1"] for u in result.units if u["bit"] == bit]) for bit in range(8)]
    assert deviation[7] > 2 * deviation[0]
    assert injected[7] > 2 * injected[0]


def test_a_pilot_stands_for_itself_and_the_rest_for_what_it_left() -> None:
    pilot, totals = 12, []
    result = run_single(calibrated(), data(), n=300, by="bit", pilot=pilot)
    for found in result.strata:
        of_bit = [unit["images"] for unit in result.units if unit["bit"] == found.stratum.bit]
        changed = [(images["sdc1"] + images["due"]) / images["images"] for images in of_bit]
        totals.append(sum(changed[:pilot]) + (found.stratum.size - pilot) * float(np.mean(changed[pilot:])))
        assert found.shares["changed"].mean * found.stratum.size == pytest.approx(totals[-1])
    assert result.network is not None
    assert result.network.shares["changed"].mean * result.population.size == pytest.approx(sum(totals))


def test_sites_and_kinds_say_what_is_drawn_from() -> None:
    result = run_single(calibrated(), data(), sites="second*", kinds=("stuck_at_1",), n=10)
    assert {(unit["site"], unit["kind"]) for unit in result.units} == {("second.weight", "stuck_at_1")}
    assert result.population.size == 8 * 4 * 8 * 9
    assert "288 weights x 8 bits of 1 site = 2,304 faults (stuck_at_1)" in result.population.describe()


# When it stops


@pytest.mark.parametrize("by", ["network", "layer"])
def test_a_margin_is_reached_in_every_stratum_with_no_more_than_the_worst_case_takes(by: Any) -> None:
    result = run_single(calibrated(), data(), margin=0.05, by=by, pilot=20)
    assert result.reached is True
    for found in result.strata:
        assert found.shares["changed"].interval.half_width <= 0.05
        assert 20 <= found.injected <= sample_size(0.05, population=found.stratum.size)
    assert sum(found.injected for found in result.strata) == len(result.units)


def test_a_stratum_that_is_sure_waits_for_no_other() -> None:
    result = run_single(tiny(), data(), margin=0.04, by="bit", pilot=10)
    injected = {found.stratum.bit: found.injected for found in result.strata}
    assert min(injected.values()) < max(injected.values())
    assert result.network is not None
    assert result.network.injected == sum(injected.values())


# Records


def measured(out: Path, **changes: Any) -> SingleResult:
    return run_single(calibrated(), data(), **{"n": 150, "by": "layer", "pilot": 20, "out": out} | changes)


def test_workers_change_nothing(tmp_path: Path) -> None:
    assert measured(tmp_path / "two", workers=2) == measured(tmp_path / "one")
    assert lines(tmp_path / "two") == lines(tmp_path / "one")


def test_a_campaign_resumed_after_any_line_has_the_same_records(tmp_path: Path) -> None:
    whole = measured(tmp_path / "whole")
    expected = lines(tmp_path / "whole")
    for kept in (0, 1, 30, 64, 65, 100, 151):
        out = tmp_path / str(kept)
        out.mkdir()
        (out / "records.jsonl").write_bytes(b"".join(expected)[: sum(map(len, expected[:kept])) + 20])
        assert measured(out) == whole
        assert lines(out) == expected


@pytest.mark.parametrize("changes", [{}, {"pilot": None, "allocation": "proportional"}, {"by": "bit", "pilot": 9}])
def test_shards_join_to_the_records_of_one_run(changes: Mapping[str, Any], tmp_path: Path) -> None:
    whole = measured(tmp_path / "whole", **changes)
    parts = [measured(tmp_path / "parts", shard=Shard(index, 2), **changes) for index in (0, 1)]
    assert all(part.missing > 0 and len(part.units) + part.missing == 150 for part in parts)
    assert measured(tmp_path / "parts", **changes) == whole
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_a_shard_that_lacks_a_stratum_says_nothing_of_the_network(tmp_path: Path) -> None:
    result = measured(tmp_path, n=6, pilot=None, allocation="proportional", shard=Shard(0, 6))
    assert (len(result.units), result.missing, result.network) == (1, 5, None)
    assert len(result.strata) == 1


def test_nothing_of_the_users_changes() -> None:
    model = SmallNet(4)
    model.load_state_dict(calibrated().state_dict())
    model.train()
    images, labels = (tensor.clone() for tensor in data())
    before = fingerprint(model, images, labels)
    run_single(model, (images, labels), n=20, workers=2, kinds=KINDS)
    assert fingerprint(model, images, labels) == before


# Tables


def test_a_layers_share_counts_every_bit_alike_however_faults_were_shared_out() -> None:
    truth = run_single(tiny(), data(), exhaustive=True)
    expected = {row["site"]: row["mean"] for row in layer_rows(truth)}
    sampled = run_single(tiny(), data(), n=300, by="bit", pilot=4)
    for row in layer_rows(sampled):
        assert row["low"] <= expected[row["site"]] <= row["high"]
        assert row["mean"] == pytest.approx(expected[row["site"]], abs=0.05)


def test_a_bit_without_a_fault_has_no_share() -> None:
    result = run_single(calibrated(), data(), n=20)
    rows = layer_bit_rows(result)
    assert len(rows) == 24
    assert sum(row["injected"] for row in rows) == 20
    assert [row["mean"] is None for row in rows] == [row["injected"] == 0 for row in rows]
    by_bit = run_single(calibrated(), data(), n=40, by="bit")
    assert layer_rows(by_bit)[0]["mean"] is None  # too few for all eight bits of the first layer


# Bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "margin: None, n: None, exhaustive: None; allowed is exactly one"),
        ({"n": 10, "margin": 0.1}, "allowed is exactly one"),
        ({"n": 10, "exhaustive": True}, "allowed is exactly one"),
        ({"n": 0}, "n: 0"),
        ({"n": 10**9}, "n: 1000000000"),
        ({"n": 10, "by": "layer_bit"}, "allowed is 48 (the floor of each)"),
        ({"n": 100, "by": "layer", "pilot": 50}, "allowed is 156"),
        ({"n": 10, "by": "network_bit"}, "by: 'network_bit'"),
        ({"n": 10, "kinds": ()}, "kinds: []"),
        ({"n": 10, "kinds": ("flap",)}, "kinds: ['flap']"),
        ({"n": 10, "critical": 0.0}, "critical: 0.0"),
        ({"n": 10, "allocation": "best"}, "allocation: 'best'"),
        ({"margin": 0.1, "allocation": "neyman"}, "together with n"),
        ({"n": 10, "allocation": "proportional", "pilot": 5}, "pilot: 5"),
        ({"n": 100, "by": "bit", "allocation": "bits", "pilot": 5}, "pilot: 5"),
        ({"n": 100, "by": "layer", "allocation": "bits"}, "'bits' by layer; allowed is by bit or layer_bit"),
        ({"exhaustive": True, "pilot": 5}, "pilot: 5"),
        ({"n": 10, "pilot": 1}, "pilot: 1; allowed is 2 or more"),
        ({"margin": 2.0}, "margin: 2.0"),
        ({"n": 10, "confidence": 0.0}, "confidence: 0.0"),
        ({"n": 10, "sites": "*.output"}, "'*.output' matches no weight"),
        ({"n": 10, "sites": "third*"}, "pattern 'third*' matches no fault site"),
        ({"margin": 0.1, "shard": Shard(0, 2), "out": "x"}, "margin: a shard cannot know"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_injected(
    changes: Mapping[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ftnas.campaign.single.Injection", lambda *_, **__: pytest.fail("injected"))
    with pytest.raises(FtnasError) as error:
        run_single(calibrated(), data(), **changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_the_folder_of_a_campaign_over_chips_is_refused(tmp_path: Path) -> None:
    from ftnas.campaign import run

    run(calibrated(), data(), "weights.bit_flip:1e-3", chips=1, out=tmp_path)
    with pytest.raises(CampaignError, match='campaign is "chips" there, "single faults" now'):
        measured(tmp_path)
