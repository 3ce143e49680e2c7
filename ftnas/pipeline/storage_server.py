"""The server where a search and workers on other machines meet: tasks in memory, behind gRPC."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from ftnas.pipeline.run_folder import reopen_run
from ftnas.search.storages import serving

EVERYWHERE = ("0.0.0.0", "::")


def serve(run: Path, *, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve the task board of ``run`` until the process is asked to end.

    Nothing is kept on disk: the search's own journal is the record, and a search puts up again what a server that was
    started anew has forgotten.

    Raises:
        RunError: there is no run, or the address cannot be used.
    """
    config = reopen_run(run).config
    with serving(host, port) as wait:
        name = socket.gethostname() if host in EVERYWHERE else host
        url = f"grpc://{f'[{name}]' if ':' in name else name}:{port}"
        tell(f"serving the tasks of {config.name} at {url}, in memory and without a password")
        tell(f"search:  ftnas search EXPERIMENT.yaml --run {run} --storage {url}")
        tell(f"workers: ftnas worker {run} --storage {url}")
        wait()
