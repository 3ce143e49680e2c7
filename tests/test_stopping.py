"""A signal ends a training after its step, saved, and going on from there changes no bit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import same_bits, small_net, state
from small_trainings import SHORT, run
from test_supernet_training import make, moved, timeless
from test_supernet_training import train as train_supernet
from torch import nn

from ftnas import stopping
from ftnas.files import read_tensors
from ftnas.runtime import place
from ftnas.stopping import Stopped, check, finishing_steps, noticing_signals
from ftnas.training import EpochSoFar, TrainingSettings

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def noticing() -> Iterator[None]:
    with noticing_signals():
        yield


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def placed_net() -> nn.Module:
    """Return the net that ``run`` trains by itself."""
    return place(small_net(), torch.device("cpu"))


def after_calls(model: nn.Module, calls: int, do: Callable[[], None]) -> Any:
    """Call ``do`` when ``model`` has computed so many times."""
    seen = []

    def hook(*_: Any) -> None:
        seen.append(1)
        if len(seen) == calls:
            do()

    return model.register_forward_hook(hook)


# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_is_being_saved_a_signal_ends_the_work_at_once(number: int, noticing: None) -> None:
    with pytest.raises(Stopped) as stop:
        send(number)
    assert (stop.value.number, stop.value.exit_code) == (number, 128 + number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_step_is_finished_before_the_work_ends(
    number: int, noticing: None, capfd: pytest.CaptureFixture[str]
) -> None:
    done = []
    with pytest.raises(Stopped, match=r"stopped by (SIGTERM|Ctrl-C) after the step"), finishing_steps():
        send(number)
        done.append("step")
        check("the step")
        done.append("another")
    assert done == ["step"]
    assert capfd.readouterr().err.count("\n") == 1


def test_a_block_without_a_check_ends_the_work_at_its_end(noticing: None) -> None:
    done = []
    with pytest.raises(Stopped), finishing_steps():
        with finishing_steps():
            send()
        done.append("outer block")
    assert done == ["outer block"]


def test_a_second_ctrl_c_ends_at_once(noticing: None) -> None:
    with pytest.raises(KeyboardInterrupt), finishing_steps():
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_sigterm_twice_asks_once(noticing: None) -> None:
    done = []
    with pytest.raises(Stopped), finishing_steps():
        send()
        send()
        done.append("step")
    assert done == ["step"]


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Stopped), noticing_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        send()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not stopping.stop_asked()


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticing_signals():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_handlers_are_left_alone() -> None:
    found = []

    def look() -> None:
        with noticing_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_without_the_command_line_handlers_are_the_users_own() -> None:
    before, found = [signal.getsignal(n) for n in SIGNALS], list[Any]()
    run(TrainingSettings(epochs=1, batch_size=50), on_epoch=lambda _: found.extend(map(signal.getsignal, SIGNALS)))
    assert found == before


# Trainings: three steps an epoch, each of a clean pass and a faulty one


@pytest.mark.parametrize("step", range(1, 9))
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(step: int, tmp_path: Path) -> None:
    net, checkpoint = placed_net(), tmp_path / "checkpoint.safetensors"
    after_calls(net, 2 * step - 1, send)
    epoch, within = divmod(step - 1, 3)
    with pytest.raises(Stopped, match=f"SIGTERM after step {within} of epoch {epoch}"), noticing_signals():
        run(net=net, checkpoint=checkpoint)
    assert read_tensors(checkpoint)[1]["epoch"]["steps"] == {"images": within + 1}
    whole, records = run()
    resumed, same_records = run(checkpoint=checkpoint)
    assert same_bits(resumed, whole)
    assert same_records == records


def test_a_training_that_keeps_nothing_stops_too(noticing: None) -> None:
    net = small_net()
    after_calls(net, 1, send)
    with pytest.raises(Stopped):
        run(net=net)


def test_in_a_long_epoch_progress_is_saved_each_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    monkeypatch.setattr("ftnas.training.saving.SECONDS_BETWEEN_SAVES", 0.0)
    net, checkpoint = placed_net(), tmp_path / "checkpoint.safetensors"
    after_calls(net, 5, kill)
    with pytest.raises(Killed):
        run(net=net, checkpoint=checkpoint)
    assert read_tensors(checkpoint)[1]["epoch"]["steps"] == {"images": 2}
    assert same_bits(run(checkpoint=checkpoint)[0], run()[0])


def test_a_model_that_is_no_number_any_more_is_not_saved_in_mid_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.saving.SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr("ftnas.training.trainer.is_finite", lambda model: False)
    checkpoint = tmp_path / "checkpoint.safetensors"
    saved = []
    monkeypatch.setattr("ftnas.training.saving.save_checkpoint", lambda *_: saved.append(1))
    with pytest.raises(Exception, match="infinite"):
        run(SHORT.model_copy(update={"objective": "sam"}), checkpoint=checkpoint)
    assert saved == []


@pytest.mark.parametrize("step", [1, 4, 5, 6, 9, 10, 11])
def test_a_supernet_that_was_stopped_goes_on_to_the_same_bits(step: int, tmp_path: Path) -> None:
    """Epochs of four steps on weights and, after the first, one on architecture weights; two passes each."""
    whole = make(epochs=3, warm_up=1)
    records = train_supernet(whole, tmp_path / "whole")
    stopped = make(epochs=3, warm_up=1)
    after_calls(stopped.supernet, 2 * step, send)
    with pytest.raises(Stopped, match=r"after step \d on (weights|architecture) of epoch \d"), noticing_signals():
        train_supernet(stopped, tmp_path / "parts")
    resumed = make(epochs=3, warm_up=1)
    same_records = train_supernet(resumed, tmp_path / "parts")
    assert [timeless(record) for record in same_records] == [timeless(record) for record in records]
    assert same_bits(state(resumed.supernet), state(whole.supernet))
    assert same_bits(state(resumed.architecture), state(whole.architecture))
    kept = [read_tensors(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "parts")]
    assert moved(*kept) == set()


def test_an_epoch_so_far_reads_back_as_it_was() -> None:
    so_far = EpochSoFar()
    for value in (0.1, 0.7, 1e-9):
        so_far.add("images", torch.tensor([value, 2.0]))
    kept = so_far.to_dict()
    again = EpochSoFar(kept)
    assert (again.steps("images"), again.means("images")) == (3, so_far.means("images"))
    assert again.seconds >= kept["seconds"] >= 0
