"""Keyed random streams, threads, devices: repeatable, and without a trace on the caller's global state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ftnas.errors import ConfigError
from ftnas.runtime import (
    choose_device,
    evaluating,
    key_seed,
    keyed_generator,
    multiplying_in,
    place,
    seeded,
    use_threads,
)

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=5)
KEYS = st.lists(st.one_of(st.integers(), WORDS), max_size=4)


@given(KEYS, KEYS)
def test_two_keys_share_a_seed_only_if_they_read_alike(one: list[int | str], other: list[int | str]) -> None:
    # A key of no parts and one of an empty word read alike.
    alike = ([str(part) for part in one] or [""]) == ([str(part) for part in other] or [""])
    assert (key_seed(*one) == key_seed(*other)) == alike


@given(KEYS)
def test_a_seed_is_one_that_a_generator_takes(key: list[int | str]) -> None:
    assert torch.Generator().manual_seed(key_seed(*key)).initial_seed() == key_seed(*key)


def test_a_seed_is_the_same_in_every_release() -> None:
    # Chips, splits and initial weights of finished runs hang on it.
    assert (key_seed("ftnas", 0), key_seed()) == (364445399923343575, 6510301506637419378)


def test_a_keyed_stream_is_a_function_of_its_key() -> None:
    one, again, other = (torch.rand(8, generator=keyed_generator("study", chip)) for chip in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_keyed_stream_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(8, generator=keyed_generator("study"))
    assert torch.equal(torch.get_rng_state(), before)


def initial_weights(*key: str | int) -> torch.Tensor:
    with seeded(*key):
        return nn.Linear(3, 2).weight.detach()


def test_layers_made_under_one_key_are_equal() -> None:
    one = initial_weights("layers", 0)
    torch.rand(5)
    assert torch.equal(one, initial_weights("layers", 0))


def test_layers_made_under_another_key_differ() -> None:
    assert not torch.equal(initial_weights("layers", 0), initial_weights("layers", 1))


def test_a_seeded_block_gives_the_global_stream_back() -> None:
    before = torch.get_rng_state()
    initial_weights("layers")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seeded_block_that_fails_gives_the_global_stream_back() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded("layers"):
        torch.rand(1)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("asked", "given"), [(-1, 1), (0, 1), (1, 1), (3, 3), (4, 4), (64, 4)])
def test_there_are_never_more_threads_than_cores_nor_less_than_one(
    asked: int, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with nullcontext() if asked <= 4 else pytest.warns(UserWarning, match="threads: 64 is more than the 4 cores"):
        use_threads(asked)
    assert torch.get_num_threads() == given


def test_a_placed_model_has_its_values_in_channels_last_layout() -> None:
    model = nn.Conv2d(4, 6, 3)
    before = model.weight.detach().clone()
    placed = place(model, torch.device("cpu"))
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.weight, before)


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(gpu: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device("auto") == torch.device(device)


@pytest.mark.parametrize(("rank", "count"), [(1, 1), (2, 2)])
def test_a_process_of_torchrun_without_a_gpu_of_its_own_is_told(
    rank: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    words = (
        f"process {rank + 1} of this machine has no GPU of its own; torch finds {count} here, so start at most {count}"
    )
    with pytest.raises(ConfigError, match=words):
        choose_device("auto")


def test_each_process_of_torchrun_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert choose_device("cuda") == torch.device("cuda", 2)
    assert chosen == [2]


@pytest.mark.parametrize(("precision", "chosen"), [("float32", "ieee"), ("bf16", "ieee"), ("tf32", "tf32")])
def test_a_gpu_rounds_factors_only_where_that_was_asked_for(precision: str, chosen: str) -> None:
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    with multiplying_in(precision):
        assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == chosen
    assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == before


def test_the_cpu_can_be_had_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^device cuda: torch finds no GPU here; choose auto or cpu$"):
        choose_device("cuda")


def test_an_unknown_device_is_named_with_those_that_are_allowed() -> None:
    with pytest.raises(ConfigError, match=r"^unknown device 'tpu'; choose from auto, cpu, cuda$"):
        choose_device("tpu")


def test_in_evaluation_every_module_keeps_its_own_mode_for_afterwards() -> None:
    net, other = nn.Sequential(nn.BatchNorm2d(1), nn.Sequential(nn.Dropout())), nn.Dropout()
    net[0].eval()
    with pytest.raises(ZeroDivisionError), evaluating(net, other):
        assert not any(module.training for module in (*net.modules(), other))
        raise ZeroDivisionError
    assert [module.training for module in (*net.modules(), other)] == [True, False, True, True, True]
