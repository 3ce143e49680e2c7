"""Several processes that share each training step, as torchrun starts them; alone, everything here does nothing.

Nothing is wrapped: a trainer takes its part of each global batch, averages gradients, and layers share their statistics
while ``together`` lasts, so that the processes compute what one would.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as torch_distributed
from torch.distributed.rendezvous import rendezvous

from ftnas.errors import ConfigError, FtnasError, TrainingError

# A step in which others do not take part ends after this time: longer than an epoch's difference between machines.
TIMEOUT = timedelta(minutes=30)
SECONDS_BETWEEN_LOOKS = 0.05

Plain = TypeVar("Plain")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, 0 to ``size - 1``; only the first writes files and speaks.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """Return which images of a global ``batch`` are this process's."""
        own = batch // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def first_image(self, own: int) -> int:
        """Return where in the global batch a part of ``own`` images begins."""
        return self.rank * own


ALONE = Ranks()


@dataclass(slots=True)
class _State:
    """Of this process: what it joined, whether a step is shared now, and how many messages there were."""

    joined: Ranks = ALONE
    sharing: Ranks = ALONE
    store: Any = None
    messages: int = 0


# A variable of the module and no ContextVar: backward passes on a GPU run in threads of their own.
_STATE = _State()


def ranks() -> Ranks:
    """Return this process among those that ``joined``."""
    return _STATE.joined


def sharing() -> Ranks:
    """Return this process among those that share the step now; alone outside of ``together``."""
    return _STATE.sharing


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started beside this one, for a block; alone where there are none."""
    if not os.environ.keys() >= {"RANK", "WORLD_SIZE", "MASTER_ADDR"} or int(os.environ["WORLD_SIZE"]) < 2:
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    with joined_by(store, rank=rank, size=size) as found:
        yield found


@contextmanager
def joined_by(store: Any, *, rank: int, size: int) -> Iterator[Ranks]:
    """Join ``size`` processes that meet at ``store``, as number ``rank``, for a block."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and torch_distributed.is_nccl_available() else "gloo"
    torch_distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    before = _STATE.joined, _STATE.store, _STATE.messages
    _STATE.joined, _STATE.store, _STATE.messages = Ranks(rank, size), store, 0
    try:
        yield _STATE.joined
    finally:
        _STATE.joined, _STATE.store, _STATE.messages = before
        torch_distributed.destroy_process_group()


@contextmanager
def together() -> Iterator[Ranks]:
    """Let the forward and backward passes of the block be parts of one: layers share their statistics.

    Every process must compute the same layers in the same order.

    Raises:
        TrainingError: one of the others ended.
    """
    before, _STATE.sharing = _STATE.sharing, _STATE.joined
    try:
        yield _STATE.sharing
    finally:
        _STATE.sharing = before


def check_shared(key: str, batch_size: int) -> None:
    """Refuse a global batch that cannot be shared equally.

    Raises:
        ConfigError: names ``key`` and what it may be.
    """
    size = _STATE.joined.size
    if batch_size % size:
        raise ConfigError(f"{key}: {batch_size} cannot be shared by {size} processes; take a multiple of {size}")


@torch.no_grad()
def average_(tensors: Sequence[Tensor]) -> None:
    """Replace each of ``tensors``, of one type and device, by its mean over the processes: one message for all."""
    size = _STATE.sharing.size
    if size == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    _all_reduce(flat, torch_distributed.ReduceOp.SUM)
    flat.div_(size)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


@torch.no_grad()
def largest_(values: Tensor) -> Tensor:
    """Replace each of ``values`` by the largest of all processes, and return them."""
    if _STATE.sharing.size > 1:
        _all_reduce(values, torch_distributed.ReduceOp.MAX)
    return values


def gathered(values: Tensor) -> Tensor:
    """Return ``values`` of every process ``[size, ...]``; what all lose by them flows back to where they are from."""
    found: Tensor = _Gathered.apply(values)  # type: ignore[no-untyped-call]
    return found


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.rank = _STATE.sharing.rank
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(_STATE.sharing.size)]
        with _noticing_ends():
            torch_distributed.all_gather(parts, values.detach().contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous()
        _all_reduce(whole, torch_distributed.ReduceOp.SUM)
        own: Tensor = whole[ctx.rank]
        return own


def any_of(value: bool) -> bool:
    """Return whether ``value`` is true in one of the processes that share the step. It waits for no GPU."""
    if _STATE.sharing.size == 1:
        return value
    flag = torch.tensor([int(value)])
    _all_reduce(flag, torch_distributed.ReduceOp.MAX)
    return bool(flag.item())


def check_equal(what: str, number: int) -> None:
    """Refuse processes that are not at the same place, as those of machines without a common folder are.

    Raises:
        TrainingError: ``number`` is not the same in all.
    """
    if _STATE.joined.size == 1:
        return
    ends = torch.tensor([number, -number])
    _all_reduce(ends, torch_distributed.ReduceOp.MAX)
    if int(ends[0]) != -int(ends[1]):
        raise TrainingError(f"{what}: {-int(ends[1])} in one process and {int(ends[0])} in another; share the folder")


def first_does(work: Callable[[], Plain]) -> Plain:
    """Return the plain data that ``work`` returns, which the first process does alone; the others wait for it.

    Raises:
        FtnasError: ``work`` raised one; then all processes do.
    """
    if _STATE.joined.size == 1:
        return work()
    key, _STATE.messages = f"ftnas/first/{_STATE.messages}", _STATE.messages + 1
    if not _STATE.joined.is_first:
        received: Plain = _received(key)
        return received
    try:
        found = work()
    except FtnasError as error:
        _STATE.store.set(key, json.dumps({"mistake": str(error)}))
        raise
    _STATE.store.set(key, json.dumps({"found": found}))
    return found


def ended() -> None:
    """Tell the others that this process ends."""
    _STATE.store.set(_end_of(_STATE.joined.rank), "")


def others_ended(*, first_only: bool, seconds: float) -> bool:
    """Wait for the end of the others, or of the first, for at most so many ``seconds``; return whether it came."""
    keys = [_end_of(rank) for rank in range(1 if first_only else _STATE.joined.size)]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if _STATE.store.check(keys):
            return True
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return False


def _end_of(rank: int) -> str:
    return f"ftnas/ended/{rank}"


def _received(key: str) -> Any:
    # Looked for again and again, since a wait of torch's own would not let a signal through.
    while not _STATE.store.check([key]):
        if _STATE.store.check([_end_of(0)]):
            raise TrainingError("the first process ended")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    message = json.loads(_STATE.store.get(key))
    if "mistake" in message:
        raise FtnasError(message["mistake"])
    return message["found"]


def _all_reduce(values: Tensor, operation: Any) -> None:
    with _noticing_ends():
        torch_distributed.all_reduce(values, operation)


@contextmanager
def _noticing_ends() -> Iterator[None]:
    """Say it in one line where another process ended, which closes the connections of all."""
    try:
        yield
    except (torch_distributed.DistError, RuntimeError) as error:
        if isinstance(error, torch_distributed.DistError) or "onnection" in str(error) or "imed out" in str(error):
            raise TrainingError(
                f"process {_STATE.joined.rank}: another of the {_STATE.joined.size} processes ended or does not "
                "answer; the same command goes on from the last checkpoint, also with another number of them"
            ) from error
        raise
