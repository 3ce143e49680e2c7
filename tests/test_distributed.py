"""What several processes train together is what one trains alone.

In float64 with a tolerance of 1e-9: sums in another order differ by some 1e-15 of their size, and no value lies so near
the middle between two codes that this rounds it to another one. In float32 the same holds with 1e-7 and, after so few
steps, 1e-5; a longer training may round a value otherwise, and from there on the two part as two seeds would.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared_trainings import TRAININGS, do, file_of

from ftnas import distributed
from ftnas.data import Augmentation, batches
from ftnas.distributed import Ranks, any_of, check_shared, first_does, joined, ranks, sharing, together
from ftnas.errors import ConfigError
from ftnas.files import read_tensors
from ftnas.quantization.normalisation import CleanBatchNorm2d

FAST = ["ftt, transient weights", "ftt, learned ranges", "saq", "worst_bits", "supernet, gumbel"]
SLOW = [name for name in TRAININGS if name not in FAST]
TESTS = Path(__file__).parent


def start(store: Path, rank: int, size: int, folder: Path, names: list[str]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "shared_trainings.py", str(store), str(rank), str(size), str(folder), *names]
    return subprocess.Popen(command, cwd=TESTS, stderr=subprocess.PIPE, text=True)


def done_by_two(folder: Path, names: list[str]) -> Path:
    """Let two processes do the trainings ``names`` together, and return the folder."""
    processes = [start(folder / "store", rank, 2, folder / f"rank{rank}", names) for rank in range(2)]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-2000:]
    finally:
        for process in processes:
            process.kill()
    return folder


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return done_by_two(tmp_path_factory.mktemp("fast"), FAST)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return done_by_two(tmp_path_factory.mktemp("slow"), SLOW)


def check_equal_to_alone(folder: Path, name: str) -> None:
    do(folder, [name])
    alone, _ = read_tensors(file_of(folder, name))
    tolerance = 1e-5 if "float32" in name else 1e-9
    for rank in range(2):
        shared, _ = read_tensors(file_of(folder / f"rank{rank}", name))
        assert shared.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                shared[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", FAST)
def test_two_processes_end_where_one_does(fast: Path, name: str) -> None:
    check_equal_to_alone(fast, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_two_processes_end_where_one_does_whatever_the_objective(slow: Path, name: str) -> None:
    check_equal_to_alone(slow, name)


@pytest.mark.parametrize("name", ["saq", "worst_bits"])
def test_processes_end_in_the_same_bits(fast: Path, name: str) -> None:
    one, other = (read_tensors(file_of(fast / f"rank{rank}", name))[0] for rank in range(2))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_alone_nothing_is_shared() -> None:
    with joined() as found, together():
        assert found == ranks() == sharing() == Ranks()
        assert first_does(lambda: 3) == 3
        assert any_of(True) and not any_of(False)
        assert batch_norm_is_torchs()


def batch_norm_is_torchs() -> bool:
    torch.manual_seed(0)
    x, norm, other = torch.randn(4, 3, 2, 2), CleanBatchNorm2d(3, affine=True), torch.nn.BatchNorm2d(3)
    return torch.equal(norm(x), other(x))


class Several:
    """Is one of several processes, as far as nothing is sent."""

    def __init__(self, rank: int, size: int) -> None:
        self._ranks = Ranks(rank, size)

    def __enter__(self) -> None:
        distributed._STATE.joined = distributed._STATE.sharing = self._ranks

    def __exit__(self, *_: object) -> None:
        distributed._STATE.joined = distributed._STATE.sharing = distributed.ALONE


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_of_a_batch_are_the_batch(size: int) -> None:
    images, labels = torch.arange(32.0).view(32, 1, 1, 1).expand(32, 1, 4, 4), torch.arange(32)

    def of(rank: int, size: int) -> list[torch.Tensor]:
        with Several(rank, size):
            drawn = batches(images, labels, batch_size=8, augmentation=Augmentation(crop_padding=1), key=("x",))
            return [torch.cat([x.flatten(1), y[:, None]], 1) for x, y in drawn]

    parts = [of(rank, size) for rank in range(size)]
    for index, whole in enumerate(of(0, 1)):
        assert torch.equal(torch.cat([part[index] for part in parts]), whole)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with Several(0, 3), pytest.raises(ConfigError, match=r"training.batch_size: 64 cannot be shared by 3 processes"):
        check_shared("training.batch_size", 64)
