"""A run in the browser: Optuna's dashboard on its journal, which it cannot change, and TensorBoard beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from ftnas.errors import RunError
from ftnas.pipeline.run_folder import reopen_run
from ftnas.search.storages import open_unchangeable

HOST = "127.0.0.1"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def show(run: Path, *, ports: tuple[int, int | None], tell: Callable[[str], None]) -> None:
    """Serve both pages to this machine until the process is asked to end.

    Args:
        ports: of Optuna's dashboard and of TensorBoard, ``None`` for none of that; 0 is a free one.
        tell: is given the addresses.

    Raises:
        RunError: there is no study in ``run``, a package is missing, or a port is taken.
    """
    folder = reopen_run(run)
    journal = folder.file("study", "journal.log")
    if not journal.exists():
        raise RunError(f"{journal}: there is no study of Optuna's controller in this run")
    own, other = ports
    with _serving(_optuna(journal), own) as port:
        tell(f"study:       http://{HOST}:{port}/")
        if other is not None:
            tell(f"TensorBoard: {_tensorboard(folder.file('tensorboard'), other)}")
        tell("for this machine only; Ctrl-C ends it")
        threading.Event().wait()


def _optuna(journal: Path) -> Application:
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise RunError(f'the dashboard needs a package ({error}): pip install "ftnas[dashboard]"') from None
    page: Application = wsgi(open_unchangeable(journal))

    def reading_only(environment: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        if environment.get("REQUEST_METHOD") in ("GET", "HEAD"):
            return page(environment, begin)
        begin("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "the journal of a run is only shown here"}']

    return reading_only


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


@contextmanager
def _serving(page: Application, port: int) -> Iterator[int]:
    """Serve ``page`` during the block; yield the port."""
    try:
        server = make_server(HOST, port, page, server_class=_Server, handler_class=_Silent)
    except OSError as error:
        raise RunError(
            f"--port {port}: cannot be used ({error.strerror}); choose another, or 0 for a free one"
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def _tensorboard(events: Path, port: int) -> str:
    """Start TensorBoard in threads of this process and return its address."""
    from tensorboard import program

    server = program.TensorBoard()
    # Its fast loader would be a process of its own, which a kill leaves behind.
    server.configure(logdir=str(events), host=HOST, port=port, load_fast="false")
    try:
        return str(server.launch())
    except program.TensorBoardServerException as error:
        raise RunError(f"--tensorboard-port {port}: cannot be used ({' '.join(str(error).split())})") from None
