"""A tiny experiment to launch, what its server tells, and what is left of its processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from command_line import ftnas
from launched_server import SCRIPT

from ftnas.pipeline import launching_keeper
from ftnas.pipeline.experiments import load_experiment
from ftnas.pipeline.launching_jobs import job_keys

ACCEPTED = "--accept-open-web-server"
ROOT = Path(__file__).parents[1]
COMMAND = shutil.which("ftnas", path=str(Path(sys.executable).parent))
TINY: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "data": {"name": "digits", "train_images": 120, "test_images": 100},
        "training": {"epochs": 1, "batch_size": 40, "objective": "qat"},
    },
    "axes": {
        "net": {
            "cell": {
                "net": str(ROOT / "experiments/results/digits_weight_faults/winner/genotype.json"),
                "space": "digits_weights",
            },
            "resnet": {"net": "resnet20", "width": 0.125},
        }
    },
    "seeds": [0, 1],
    "chips": 2,
    "faults": ["weights.bit_flip:0.01"],
    "sharpness_images": 50,
}
STARTED: list[subprocess.Popen[str]] = []
NAMES = ["cell-seed0", "cell-seed1", "resnet-seed0", "resnet-seed1"]


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes, sort_keys=False))
    return path


def free_port() -> int:
    """Return a port that is free, and the next one, too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("", 0))
            port = int(one.getsockname()[1])
            try:
                other.bind(("", port + 1))
            except OSError:
                continue
            return port


def processes_with(words: str) -> list[str]:
    """Return the command lines of living processes that have ``words`` in them."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if words in line and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(line)
        except psutil.Error:
            continue
    return found


def wait_until(true: Any, *, seconds: float = 120.0) -> bool:
    """Return whether ``true()`` became true; waits as long as a busy machine may take."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.1)
    return False


def launched(config: Path, out: Path, *options: object, **environment: str) -> subprocess.Popen[str]:
    """Start ``ftnas launch`` in a process of its own, which ``end_launches`` ends if the test does not."""
    words = [config, "--out", out, "--accept-open-web-server", *options]
    STARTED.append(
        subprocess.Popen(
            [str(COMMAND), "launch", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
    )
    return STARTED[-1]


def end_launches() -> None:
    """End what ``launched`` has started and is not at its end."""
    while STARTED:
        process = STARTED.pop()
        process.terminate()
        process.communicate()


def launch(config: Path, out: Path, *options: object) -> Any:
    return ftnas("launch", config, "--out", out, "--port", free_port(), ACCEPTED, *options)


def telling(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., None]:
    """Return a function that decides what the process of NNI's server tells in a test, in place of the real one."""
    monkeypatch.setattr(launching_keeper, "SERVER_MODULE", "launched_server")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv(SCRIPT, str(folder / "script.json"))

    def tell(*events: dict[str, Any], **more: Any) -> None:
        (folder / "script.json").write_text(json.dumps({"events": [{"event": "started"}, *events], **more}))

    return tell


def trial(number: int, name: str, key: str, *, of: str | None = None, status: str = "SUCCEEDED") -> dict[str, Any]:
    """Return what is told of a trial that NNI lists as ``name``, with a result of the training ``of``."""
    measured = {
        "clean": 0.5, "zeros": 0.0, "sharpness": 0.0,
        "faults": [{"fault": "weights.bit_flip", "rate": 0.01, "chips": [0.5, 0.5]}],
    }  # fmt: skip
    echoed = {"default": 0.5, "name": of or name, "key": key, "measured": measured}
    return {
        "event": "trial",
        "trial": {"number": number, "status": status, "given": {"name": name, "key": key},
                  "echoed": echoed if status == "SUCCEEDED" else None, "place": "here", "said": "ftnas: no more disk"},
    }  # fmt: skip


def keys_of(path: Path) -> dict[str, str]:
    config = load_experiment(path)
    return job_keys(config, config.trainings())
