"""Campaigns over chips: the same records whatever is killed, shared out or repeated, and as many chips as it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign_support import IMAGES, calibrated, data, fingerprint, lines
from small_nets import SmallNet
from torch import nn

from ftnas.campaign import ChipResult, Shard, accuracy, chip_accuracies, read_records, run
from ftnas.campaign.outcomes import outcomes
from ftnas.errors import CampaignError, FaultError, FtnasError
from ftnas.faults import BitFlip, MacBitBias, inject

FLIPS = "weights.bitflip:1e-3,1e-2"
TESTS = Path(__file__).parent


def chips(result: ChipResult, rate: int, name: str = "correct_after") -> list[int]:
    return [unit["rates"][rate]["images"][name] for unit in result.units]


# What is measured


@pytest.mark.parametrize("fault", ["weights.bit_flip:1e-2", "features.bit_flip:1e-3", "weights.stuck_cell:0.05"])
def test_a_chip_has_the_accuracy_that_injection_gives(fault: str) -> None:
    result = run(calibrated(), data(), fault, chips=4, study="s", batch_size=25)
    faults = [*result.rates[0].faults]
    from ftnas.faults import parse_fault

    expected = chip_accuracies(
        calibrated(), *data(), faults=[parse_fault(text) for text in faults], chips=range(4), study="s", batch_size=25
    )
    assert [right / IMAGES for right in chips(result, 0)] == expected
    assert result.rates[0].accuracy.mean == pytest.approx(sum(expected) / 4)
    assert result.accuracy == accuracy(calibrated(), *data())


def test_every_record_says_how_many_faults_there_were_and_what_became_of_each_image() -> None:
    result = run(calibrated(), data(), FLIPS, chips=3, study="s", batch_size=IMAGES)
    images, labels = data()
    with torch.no_grad():
        golden = calibrated()(images).numpy()
    for chip, unit in enumerate(result.units):
        for rate, found in zip((1e-3, 1e-2), unit["rates"], strict=True):
            with torch.no_grad(), inject(calibrated(), BitFlip(rate), chip=chip, study="s") as injection:
                faulty = calibrated()(images).numpy()
            assert found["images"] == outcomes(golden, faulty, labels.numpy()).to_dict()
            for name in ("planned", "applied", "effective", "masked"):
                assert found["faults"][name] == sum(getattr(count, name) for count in injection.counts.values())
    assert result.rates[1].counts["applied"] > result.rates[0].counts["applied"] > 0


def test_the_rates_of_a_campaign_share_their_chips() -> None:
    together = run(calibrated(), data(), "weights.bit_flip:1e-3", rates=[1e-3, 1e-2], chips=3)
    alone = run(calibrated(), data(), BitFlip(1e-2), chips=3)
    assert chips(together, 1) == chips(alone, 0)
    assert [rate.rate for rate in together.rates] == [1e-3, 1e-2]


def test_several_faults_keep_their_proportion_or_their_rate() -> None:
    scaled = run(calibrated(), data(), [BitFlip(1e-3), MacBitBias(1e-4)], rates=[1e-2], chips=1)
    assert scaled.rates[0].faults == ("weights.bit_flip:0.01", "features.mac_bit_bias:0.001")
    swept = run(calibrated(), data(), [FLIPS, "features.mac_bit_bias:1e-4"], chips=1)
    assert [rate.faults[1] for rate in swept.rates] == ["features.mac_bit_bias:0.0001"] * 2


def test_answers_can_be_compared_with_those_of_another_net() -> None:
    torch.manual_seed(3)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    result = run(calibrated(), data(), FLIPS, chips=2, golden=other)
    assert result.accuracy == accuracy(other, *data())
    assert chips(result, 0, "correct_before") == [round(result.accuracy * IMAGES)] * 2
    assert chips(result, 0, "masked") == [0, 0]
    assert chips(result, 0) == chips(run(calibrated(), data(), FLIPS, chips=2), 0)


def test_faults_of_rate_0_mask_every_image() -> None:
    result = run(calibrated(), data(), "weights.bit_flip:0", chips=2)
    assert chips(result, 0, "masked") == [IMAGES] * 2
    assert result.rates[0].shares["masked"].mean == 1


def test_the_population_is_told() -> None:
    result = run(calibrated(), data(), [FLIPS, "features.bit_flip:1e-4"], chips=1, study="mine")
    weights = sum(
        p.numel() for name, p in calibrated().named_parameters() if name.endswith("weight") and "norm" not in name
    )
    assert f"weights.bit_flip at 3 sites with {weights:,} values, features.bit_flip at 3 sites" in result.population
    assert "'mine'" in result.population


# When it stops


def test_a_margin_is_reached_at_every_rate_and_not_much_before() -> None:
    result = run(calibrated(), data(), FLIPS, margin=0.02)
    assert result.reached is True
    assert result.chips >= 20
    assert all(rate.accuracy.interval.half_width <= 0.02 for rate in result.rates)
    assert any(rate.accuracy.interval.confidence > 0.95 for rate in result.rates)
    wide = run(calibrated(), data(), FLIPS, margin=0.2)
    assert wide.chips == 20 < result.chips
    assert chips(wide, 1) == chips(result, 1)[:20]


def test_a_margin_out_of_reach_ends_at_the_largest_campaign_and_says_so() -> None:
    result = run(calibrated(), data(), FLIPS, margin=1e-4, max_chips=25)
    assert (result.chips, result.reached) == (25, False)


def test_a_number_of_chips_is_kept_to_and_has_the_plain_confidence() -> None:
    result = run(calibrated(), data(), FLIPS, chips=5, confidence=0.9)
    assert (result.chips, result.reached, result.missing) == (5, None, 0)
    assert result.rates[0].accuracy.interval.confidence == 0.9


# Records


def measured(out: Path | None, **changes: Any) -> ChipResult:
    return run(calibrated(), data(), FLIPS, **{"chips": 7, "out": out, "batch_size": 25} | changes)


def test_workers_and_progress_change_nothing(tmp_path: Path) -> None:
    alone = measured(tmp_path / "one")
    both = measured(tmp_path / "two", workers=2)
    assert both == alone
    assert lines(tmp_path / "two") == lines(tmp_path / "one")


def test_a_campaign_resumed_after_any_line_has_the_same_records(tmp_path: Path) -> None:
    whole = measured(tmp_path / "whole")
    expected = lines(tmp_path / "whole")
    for kept in range(len(expected) + 1):
        out = tmp_path / str(kept)
        out.mkdir()
        cut = b"".join(expected)[: sum(map(len, expected[:kept])) + 11]
        (out / "records.jsonl").write_bytes(cut)
        assert measured(out) == whole
        assert lines(out) == expected


def test_what_is_on_record_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(tmp_path)
    monkeypatch.setattr("ftnas.campaign.chips.chip_logits", lambda *_, **__: pytest.fail("measured again"))
    assert measured(tmp_path) == whole
    assert measured(tmp_path, chips=3).units == whole.units[:3]


def test_more_chips_join_those_that_are_there(tmp_path: Path) -> None:
    measured(tmp_path / "grown", chips=3)
    measured(tmp_path / "grown", chips=7)
    measured(tmp_path / "whole", chips=7)
    assert lines(tmp_path / "grown") == lines(tmp_path / "whole")


def test_shards_join_to_the_records_of_one_run(tmp_path: Path) -> None:
    whole = measured(tmp_path / "whole")
    parts = [measured(tmp_path / "parts", shard=Shard(index, 2)) for index in (1, 0)]
    assert [(part.chips, part.missing) for part in parts] == [(3, 4), (4, 3)]
    assert measured(tmp_path / "parts") == whole
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_what_no_shard_has_done_is_done_when_they_are_joined(tmp_path: Path) -> None:
    whole = measured(tmp_path / "whole")
    measured(tmp_path / "parts", shard=Shard(1, 3))
    assert measured(tmp_path / "parts") == whole
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_a_shard_beyond_the_last_chip_has_nothing_to_do(tmp_path: Path) -> None:
    result = measured(tmp_path, chips=2, shard=Shard(2, 3))
    assert (result.chips, result.missing, result.rates) == (0, 2, ())


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from campaign_support import calibrated, data
from ftnas.campaign import run
if {slow}:
    calibrated().classifier.register_forward_hook(lambda *_: time.sleep(0.02))
run(calibrated(), data(), {faults!r}, chips=40, batch_size=25, out=Path({out!r}))
"""


def test_a_process_killed_in_the_middle_goes_on_to_the_same_records(tmp_path: Path) -> None:
    def start(slow: bool) -> subprocess.Popen[bytes]:
        script = SCRIPT.format(tests=str(TESTS), out=str(tmp_path / "killed"), slow=slow, faults=FLIPS)
        return subprocess.Popen([sys.executable, "-c", script])

    file = tmp_path / "killed" / "records.jsonl"
    process = start(slow=True)
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") > 5):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 5 < len(lines(tmp_path / "killed")) < 41
    run(calibrated(), data(), FLIPS, chips=40, batch_size=25, out=tmp_path / "killed")
    run(calibrated(), data(), FLIPS, chips=40, batch_size=25, out=tmp_path / "whole")
    assert file.read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


def test_an_error_in_the_middle_leaves_what_was_measured(tmp_path: Path) -> None:
    class Failing(Exception):
        pass

    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise Failing

    model = SmallNet(4)
    model.load_state_dict(calibrated().state_dict())
    handle = model.classifier.register_forward_hook(fail)
    for workers in (1, 2):
        calls = 0
        with pytest.raises(Failing):
            run(model, data(), FLIPS, chips=30, batch_size=25, out=tmp_path, workers=workers)
    handle.remove()
    assert read_records(tmp_path / "records.jsonl").units
    run(model, data(), FLIPS, chips=30, batch_size=25, out=tmp_path)
    run(model, data(), FLIPS, chips=30, batch_size=25, out=tmp_path / "whole")
    assert lines(tmp_path) == lines(tmp_path / "whole")


# What a campaign leaves alone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_of_the_users_changes(training: bool, workers: int) -> None:
    model = SmallNet(4)
    model.load_state_dict(calibrated().state_dict())
    model.train(training)
    model.second.train(not training)
    images, labels = (tensor.clone() for tensor in data())
    before = fingerprint(model, images, labels)
    run(model, (images, labels), [FLIPS, "features.bit_flip:1e-3"], chips=2, workers=workers)
    with pytest.raises(FtnasError):
        run(model, (images, labels.float()[:, None]), FLIPS, chips=2)
    with pytest.raises(CampaignError):
        run(nn.Sequential(model, nn.Flatten(0)), (images, labels), FLIPS, chips=2)
    assert fingerprint(model, images, labels) == before


def test_two_campaigns_may_run_at_once() -> None:
    found: dict[int, ChipResult] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: measured(None)})) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == measured(None)


# Bad input


@pytest.mark.parametrize(
    ("faults", "changes", "words"),
    [
        (FLIPS, {}, "margin: None, chips: None; allowed is exactly one of the two"),
        (FLIPS, {"margin": 0.01, "chips": 3}, "allowed is exactly one of the two"),
        (FLIPS, {"margin": 0.0}, "margin: 0.0"),
        (FLIPS, {"margin": 1.5}, "margin: 1.5"),
        (FLIPS, {"chips": 0}, "chips: 0; allowed is 1 or more"),
        (FLIPS, {"margin": 0.1, "max_chips": 0}, "max_chips: 0"),
        (FLIPS, {"chips": 1, "confidence": 1.0}, "confidence: 1.0"),
        (FLIPS, {"chips": 1, "workers": 0}, "workers: 0; allowed is 1 or more"),
        (FLIPS, {"chips": 1, "batch_size": 0}, "batch_size: 0"),
        (FLIPS, {"chips": 1, "rates": [0.1]}, "the faults list rates themselves"),
        (FLIPS, {"chips": 1, "shard": Shard(0, 2)}, "needs a folder"),
        (BitFlip(0.1), {"chips": 1, "rates": []}, "rates: []"),
        (BitFlip(0.1), {"chips": 1, "rates": [0.1, 0.1]}, "each once"),
        (BitFlip(0.1), {"chips": 1, "rates": [1.5]}, "rate must be a number in [0, 1], got 1.5"),
        ("weights.bit_flip:1.5", {"chips": 1}, "rate must be a number in [0, 1], got 1.5"),
        ("weights.bit_flop:0.1", {"chips": 1}, "unknown fault 'weights.bit_flop'"),
        ([FLIPS, "features.bit_flip:1e-3,1e-2,0.1"], {"chips": 1}, "[2, 3] rates"),
        ([], {"chips": 1}, "faults: none are given"),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(faults: Any, changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(FtnasError) as error:
        run(calibrated(), data(), faults, **changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_shard_of_a_margin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="margin: a shard cannot know"):
        run(calibrated(), data(), FLIPS, margin=0.1, shard=Shard(0, 2), out=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "1", "2/2", "0/0", "-1/2", "a/b", "0/2/3"])
def test_a_shard_is_written_as_index_and_count(text: str) -> None:
    with pytest.raises(CampaignError, match="shard: "):
        Shard.parse(text)


def test_a_model_with_nothing_to_inject_is_refused() -> None:
    with pytest.raises(FaultError, match="Linear has no quantised layer"):
        run(nn.Linear(4, 4), data(), FLIPS, chips=1)


def test_a_fault_that_can_hit_nothing_is_refused() -> None:
    from ftnas.quantization import QuantizedLinear

    model = nn.Sequential(nn.Flatten(), QuantizedLinear(64, 10))
    with pytest.raises(FaultError, match=r"features\.mac_bit_bias: Sequential has no site that it can hit"):
        run(model, data(), "features.mac_bit_bias:1e-3", chips=1)


def test_a_campaign_inside_an_injection_is_refused() -> None:
    with inject(calibrated(), BitFlip(0.1)), pytest.raises(CampaignError, match="inside inject"):
        run(calibrated(), data(), FLIPS, chips=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"study": "other"}, 'study is "campaign" there, "other" now'),
        ({"faults": "weights.bit_flip:1e-3"}, "faults is"),
        ({"model": True}, "model.hash is"),
        ({"images": 30}, "data.images is [60, 1, 8, 8] there, [30, 1, 8, 8] now"),
        ({"labels": 1}, "data.hash is"),
        ({"batch_size": 10}, "batch_size is 25 there, 10 now"),
        ({"golden": True}, "golden is null there"),
    ],
)
def test_a_folder_of_another_campaign_is_refused_and_stays_readable(
    changes: Mapping[str, Any], words: str, tmp_path: Path
) -> None:
    measured(tmp_path, chips=2)
    before = lines(tmp_path)
    model = SmallNet(4)
    model.load_state_dict(calibrated().state_dict())
    if "model" in changes:
        with torch.no_grad():
            model.first.weight[0, 0, 0, 0] += 1e-3
    count = changes.get("images", IMAGES)
    images, labels = data()
    with pytest.raises(CampaignError) as error:
        run(
            model,
            (images[:count], (labels[:count] + changes.get("labels", 0)) % 10),
            changes.get("faults", FLIPS),
            chips=2,
            study=changes.get("study", "campaign"),
            batch_size=changes.get("batch_size", 25),
            golden=calibrated() if "golden" in changes else None,
            out=tmp_path,
        )
    assert str(tmp_path) in str(error.value)
    assert words in str(error.value)
    assert lines(tmp_path) == before
    assert len(read_records(tmp_path / "records.jsonl").units) == 2


def test_a_damaged_shard_is_named_and_nothing_is_begun(tmp_path: Path) -> None:
    measured(tmp_path, shard=Shard(0, 2))
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"chip 2"', b'"chip 3"'))
    with pytest.raises(CampaignError, match=r"records-0-of-2\.jsonl, line 3: is damaged"):
        measured(tmp_path)
    assert list(tmp_path.glob("records*")) == [file]
