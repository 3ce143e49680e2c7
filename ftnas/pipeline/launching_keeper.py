"""The process that keeps NNI's server, seen from the command that launches: its events, and its certain end."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ftnas.errors import LaunchError
from ftnas.files import write_text
from ftnas.pipeline.launching_processes import kill_session
from ftnas.pipeline.launching_server import END_WITH_PARENT, SECONDS_TO_END

SERVER_MODULE = "ftnas.pipeline.launching_server"

SECONDS_TO_START = 90.0
SECONDS_OF_SILENCE = 120.0


@contextmanager
def nni_server(home: Path, plan: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """Run the process that keeps NNI's server and yield its events; at the end no process of it is left.

    Raises:
        LaunchError: it fails, or is silent for too long.
    """
    write_text(home / "end_with_parent.js", END_WITH_PARENT)
    (home / "home" / "nni-experiments").mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", SERVER_MODULE, str(home.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is ours alone, and all of its processes are found by its session
            env=_environment(home),
        )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    try:
        reader.start()
        _write(process, plan)
        yield _events(lines, log)
    finally:
        _end(process)
        reader.join()


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of NNI's server: it writes into a home folder of its own, and ends with its parent."""
    place = (home / "home").resolve()
    preload = json.dumps(str((home / "end_with_parent.js").resolve()), ensure_ascii=False)
    ours = {"HOME": str(place), "NNI_CONFIG_DIR": str(place / "nni"), "NODE_OPTIONS": f"--require {preload}"}
    return {**os.environ, **ours}


def _write(process: subprocess.Popen[str], plan: dict[str, Any]) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # it has ended already, which its events tell
        process.stdin.write(json.dumps(plan) + "\n")
        process.stdin.flush()


def _events(lines: queue.Queue[str], log: Path) -> Iterator[dict[str, Any]]:
    """Yield what the server's process tells, first that it has started, until it ends.

    Raises:
        LaunchError: it tells of a failure, or nothing for too long.
    """
    patience = SECONDS_TO_START
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            raise LaunchError(f"NNI's server has not answered for {patience:.0f} s; see {log}") from None
        event = json.loads(line) if line else {"event": "failed", "reason": f"its process has ended; see {log}"}
        if event["event"] == "ended":
            return
        if event["event"] == "failed":
            raise LaunchError(f"NNI's server: {event['reason']}")
        patience = SECONDS_OF_SILENCE
        yield event


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Put each line of what the process tells into ``lines``, at its end an empty one."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str]) -> None:
    """Let the server's process end its trials and its server, then see to it that none of its processes is left."""
    try:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    finally:
        kill_session(process.pid)
        process.wait()
