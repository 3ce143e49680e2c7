"""Ports, and the processes of a launch: all of them are of one session, so that none is overlooked. Needs psutil."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

PAUSE = 0.05  # seconds between two looks
SECONDS_TO_DIE = 10.0  # of what is killed, and may hang in the system


def is_free(port: int) -> bool:
    """Return whether a server could listen to ``port`` on every interface."""
    return all(_can_bind(family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _can_bind(family: socket.AddressFamily, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            # As servers do: the port of one that has just ended is free.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("", port))
    except OSError as error:
        return error.errno not in (errno.EADDRINUSE, errno.EACCES)  # else there is no such family here
    return True


def holder_of(port: int) -> str:
    """Return which process listens to ``port``, as far as this user may know."""
    import psutil

    with suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return f"process {one.pid} ({psutil.Process(one.pid).name()})"
    return "another process"


def addresses(port: int) -> list[str]:
    """Return where a server that listens to ``port`` on every interface is reached, this machine's own last."""
    import psutil

    found = {one.address for all_ in psutil.net_if_addrs().values() for one in all_ if one.family == socket.AF_INET}
    return [f"http://{ip}:{port}" for ip in sorted(found, key=lambda ip: (ip.startswith("127."), ip))]


def members(session: int, *saying: str) -> list[Any]:
    """Return the living processes of ``session`` but this one; if any words are given, those whose command says one."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and os.getsid(process.pid) == session and _says(process, saying):
                found.append(process)
    return [process for process in found if is_alive(process)]


def _says(process: Any, words: Sequence[str]) -> bool:
    return not words or any(word in " ".join(process.cmdline()) for word in words)


def is_alive(process: Any) -> bool:
    """Return whether ``process`` still computes, which one that waits to be asked for its exit code does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_all(processes: Iterable[Any], *, seconds: float) -> None:
    """Ask each of ``processes`` to end by SIGTERM, wait for so many ``seconds``, and kill what is left."""
    import psutil

    asked = list(processes)
    for process in asked:
        with suppress(psutil.Error):
            process.terminate()
    until = time.monotonic() + seconds
    while any(map(is_alive, asked)) and time.monotonic() < until:
        time.sleep(PAUSE)
    kill_all(asked)


def kill_all(processes: Iterable[Any]) -> None:
    """Kill ``processes``."""
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def kill_session(session: int) -> None:
    """Kill every process of ``session`` but this one, and those that are being started meanwhile."""
    until = time.monotonic() + SECONDS_TO_DIE
    while (left := members(session)) and time.monotonic() < until:
        kill_all(left)
        time.sleep(PAUSE)


def nni_servers() -> list[Any]:
    """Return the processes of NNI's web servers on this machine, whoever started them."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if any("nni_node" in word and word.endswith("main.js") for word in words):
                found.append(process)
    return [process for process in found if is_alive(process)]


def is_orphan(server: Any) -> bool:
    """Return whether the Python process that started NNI's ``server`` is gone."""
    import psutil

    try:
        parent = server.parent()
        return parent is None or not any("python" in word for word in parent.cmdline()[:1])
    except psutil.Error:
        return True


def option_of(server: Any, name: str) -> str:
    """Return the value of the option ``--name`` on the command line of NNI's ``server``; empty if it has none."""
    import psutil

    with suppress(psutil.Error, ValueError, IndexError):
        words = server.cmdline()
        return str(words[words.index(f"--{name}") + 1])
    return ""
