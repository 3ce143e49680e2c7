"""One thread, repeatable examples, no network."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The first example of a property may pay for imports and warm-up, so no example has a deadline.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# A shell gives what it starts in the background an ignored Ctrl-C, which the tests of stopping could not send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    def refuse(_: socket.socket, address: Any) -> None:
        raise RuntimeError(f"tests use no network, one tried {address}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(autouse=True, scope="module")
def no_allowed_code() -> Iterator[None]:
    """Python files that one module's tests let run are not let run for the next one's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTNAS_ALLOW_CODE", "")
        yield


@pytest.fixture(scope="session")
def quick_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished quick run, of which a test that changes something takes a copy."""
    from quick_runs import quick_run

    return quick_run(tmp_path_factory.mktemp("quick"))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
