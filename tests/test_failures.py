"""Trainings that diverge or teach nothing: the run goes on, stops their training, and says so everywhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from command_line import SPACE
from quick_runs import quick
from small_nets import small_net
from torch import nn
from typer.testing import CliRunner

import ftnas.training.trainer
from ftnas.cli.main import app
from ftnas.files import read_json
from ftnas.pipeline.failures import Diverged, check_finite, diverged_in, failure, noticing_divergence, recorded
from ftnas.training import EpochRecord, save_checkpoint

DIVERGING = {"epochs": 2, "batch_size": 32, "learning_rate": 1e30}


def records(*losses: float) -> list[EpochRecord]:
    return [EpochRecord(epoch, loss, loss, loss, 0.5, 1.0) for epoch, loss in enumerate(losses)]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(loss: float) -> None:
    check_finite(2.3, None)
    with pytest.raises(Diverged):
        check_finite(2.3, None, loss)


@pytest.mark.parametrize("error", [None, ValueError("scale must be positive, got nan")])
def test_numbers_that_are_no_longer_finite_are_divergence(error: ValueError | None) -> None:
    net = small_net()
    with pytest.raises(Diverged), noticing_divergence(net):
        nn.init.constant_(net.first.weight, math.nan)
        if error:
            raise error


def test_a_range_that_is_no_longer_finite_is_divergence() -> None:
    net = small_net()
    with pytest.raises(Diverged), noticing_divergence(net):
        net.first.feature_limit.fill_(math.inf)


def test_an_error_in_training_a_finite_net_is_passed_on() -> None:
    with pytest.raises(ValueError, match="another mistake"), noticing_divergence(small_net()):
        raise ValueError("another mistake")


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [((2.3, math.inf, math.nan), 1), ((2.3, 2.0), 2), ((), 0), ((2.3, 2.2, 2.1, 2.0), 3)],
    ids=["recorded", "within the next epoch", "within the first epoch", "at the very end"],
)
def test_the_epoch_of_divergence_is_the_first_without_a_finite_loss(losses: tuple[float, ...], epoch: int) -> None:
    assert diverged_in(records(*losses), epochs=4) == epoch


def test_epochs_of_an_interrupted_training_are_found_in_its_checkpoint(tmp_path: Path) -> None:
    assert recorded(tmp_path / "checkpoint") == []
    save_checkpoint(tmp_path / "checkpoint", small_net(), {}, {"records": [{"epoch": 0}]})
    assert recorded(tmp_path / "checkpoint") == [{"epoch": 0}]


@pytest.mark.parametrize(("clean", "told"), [(0.4, "learned nothing in training"), (0.5, None)])
def test_a_net_no_better_than_naming_the_commonest_class_has_learned_nothing(clean: float, told: str | None) -> None:
    assert failure(None, clean, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])) == told


def test_a_divergence_is_told_with_its_epoch() -> None:
    assert failure(3, 0.9, torch.arange(10)) == "diverged in training at epoch 3"


def search(folder: Path, **changes: Any) -> Result:
    return CliRunner().invoke(app, ["search", str(quick(folder, **changes)), "--run", str(folder / "run")])


def results(run: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(run.glob("trainings/*/result.json"))]


# Dense convolutions with learned ranges of weights come to one that is not a number, which a quantiser refuses.
LEARNED = {"weight_bits": 8, "weight_range": "learned"}
REFUSED = {
    "operators": ["none", "skip_connect", "relu_conv_bn_3x3"],
    "quantization": [{"weight_bits": 8, "weight_range": "fixed(0.125)"}, LEARNED],
    "base_quantization": LEARNED,
}


@pytest.mark.parametrize("changes", [{}, REFUSED], ids=["infinite losses", "refused ranges"])
def test_a_run_whose_trainings_diverge_goes_on_and_says_so_everywhere(changes: Any, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE | changes))
    done = search(tmp_path, space=str(space), training=DIVERGING)
    assert done.exit_code == 0, (done.output, done.exception)
    failed = [result for result in results(tmp_path / "run") if str(result["failure"]).startswith("diverged")]
    assert {"finalist", "random", "winner"} >= {result["family"] for result in failed} >= {"random"}
    warnings, printed = read_json(tmp_path / "run" / "warnings.json"), " ".join(done.stdout.split())
    for result in failed:
        text = f"{result['label']} (trainings/{result['name']}) {result['failure']}: its accuracy is that of guessing"
        assert text in warnings
        assert text in printed


def test_a_net_that_diverged_counts_as_guessing_and_is_trained_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = ftnas.training.trainer._Training._epoch

    def diverging(*given: Any, **more: Any) -> EpochRecord:
        record = train_epoch(*given, **more)
        return replace(record, loss=math.nan) if record.epoch else record

    monkeypatch.setattr(ftnas.training.trainer._Training, "_epoch", diverging)
    finalists = {"top": 1, "random": 1, "epochs": 3, "chips": 2}
    assert search(tmp_path, training={"epochs": 4, "batch_size": 32}, finalists=finalists).exit_code == 0
    for result in results(tmp_path / "run"):
        assert result["failure"] == "diverged in training at epoch 1"
        assert (result["clean"], {rate["mean"] for rate in result["rates"]}) == (0.1, {0.1})
        assert len(read_json(tmp_path / "run" / "trainings" / result["name"] / "history.json")) == 2


def test_a_supernet_that_diverges_ends_the_run_with_one_line(tmp_path: Path) -> None:
    diverging = {"epochs": 2, "warm_up": 1, "batch_size": 16, "learning_rate": 1e30}
    for relaxation in ("uniform", "softmax"):
        done = search(tmp_path, supernet=diverging | {"relaxation": relaxation})
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1] == (
            "ftnas: supernet.learning_rate: the supernet diverged in training at 1e+30; "
            "choose a smaller one, and another folder with --run"
        )
        (tmp_path / "run").rename(tmp_path / relaxation)
