"""A PostgreSQL server of the tests' own: in a temporary folder, on a socket there, with no port at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

REASON = "PostgreSQL's initdb is not installed (Debian: apt-get install postgresql)"
ANYONE = ("postgres", "nobody")  # as whom the server runs where the tests are root, which it refuses to be


def program(name: str) -> str | None:
    """Return where ``name`` of PostgreSQL is: on the path, or where Debian puts it."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next((str(place) for place in places), None)


@contextmanager
def server() -> Iterator[str]:
    """Start a server for the block; yield the URL of a database in it."""
    initdb, control = program("initdb"), program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip(REASON)
    pytest.importorskip("psycopg", reason="pip install 'ftnas[postgresql]'")
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:  # a socket's path must be short
        home = Path(folder)
        user = _make_usable(home)
        data = home / "data"
        options = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c fsync=off"
        _run([initdb, "-D", str(data), "-A", "trust", "-U", "ftnas", "-E", "UTF8", "--no-sync"], user)
        _run([control, "-D", str(data), "-w", "-l", str(home / "log"), "-o", options, "start"], user)
        try:
            yield f"postgresql://ftnas@/postgres?host={home}"
        finally:
            _run([control, "-D", str(data), "-w", "-m", "immediate", "stop"], user)


def _make_usable(home: Path) -> str | None:
    """Return as whom the server is to run, ``None`` for who runs the tests; ``home`` is then that user's."""
    if os.getuid() != 0:
        return None
    for user in ANYONE:
        try:
            shutil.chown(home, user)
        except LookupError:
            continue
        return user
    pytest.skip("tests run by root need a user postgres or nobody for the server")


def _run(command: Sequence[str], user: str | None) -> None:
    prefix = ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
