"""Where a search and its workers meet: Optuna's storages, by path or URL. The one door to gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from ftnas.errors import RunError
from ftnas.search.places import DRIVERS, KINDS, shown
from ftnas.search.studies import quiet
from ftnas.search.task_journal import TaskJournal

ANSWER_SECONDS = 8
"""How long a server may take to answer."""

SERVER_THREADS = 16


class UnreadableBoard(RunError):
    """A file that ought to be a task board is damaged."""


class _Proxy(GrpcStorageProxy):
    """Optuna's gRPC client, none of whose calls waits without end."""

    def _setup(self) -> None:
        super()._setup()
        import grpc

        class Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # its package ships no types
            def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
                return continuation(details._replace(timeout=ANSWER_SECONDS), request)

        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.client import GrpcClientCache

        stub: Any = api_pb2_grpc.StorageServiceStub
        self._stub = stub(grpc.intercept_channel(self._channel, Deadline()))
        self._cache = GrpcClientCache(self._stub)


def open_storage(place: Path | str) -> BaseStorage:
    """Return the storage at ``place``: a journal file, a database or a server of ``ftnas storage-server``.

    Raises:
        RunError: it does not answer within some ten seconds, its driver is missing, or it is none.
    """
    if isinstance(place, Path):
        return _open_file(place)
    scheme = place.partition("://")[0] if "://" in place else ""
    kind = scheme.partition("+")[0]
    with quiet():
        if kind == "grpc":
            return _open_server(place)
        if kind in ("sqlite", "mysql", *DRIVERS):
            from ftnas.search.databases import open_database  # takes half a second, and few searches have one

            return open_database(place, answer_seconds=ANSWER_SECONDS)
    raise RunError(f"storage {shown(place)}: unknown kind of storage; choose from {KINDS}")


class _Unchangeable(JournalFileBackend):
    """A journal that can only be read."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise PermissionError("this journal is only read here")


def open_unchangeable(journal: Path) -> BaseStorage:
    """Return the storage in a study's ``journal``, for reading only.

    Raises:
        RunError: it is not a journal.
    """
    try:
        return JournalStorage(_Unchangeable(str(journal)))
    except OSError as error:
        raise RunError(f"{journal}: cannot be opened ({error.strerror})") from None
    except Exception as error:
        raise RunError(f"{journal}: is not a readable study journal ({type(error).__name__}: {error})") from None


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of ``storage``, which is not used any more."""
    engine = getattr(getattr(storage, "_backend", None), "engine", None)
    if engine is not None:
        engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


def _open_file(path: Path) -> BaseStorage:
    try:
        return JournalStorage(TaskJournal(path))
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror})") from None
    except Exception as error:
        raise UnreadableBoard(f"{path}: is not a readable task board ({type(error).__name__}: {error})") from None


def _open_server(url: str) -> BaseStorage:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None:
        raise RunError(f"storage {shown(url)}: a host and a port are needed, such as grpc://localhost:13000")
    proxy = _Proxy(host=f"[{host}]" if ":" in host else host, port=port)
    try:
        proxy.wait_server_ready(timeout=ANSWER_SECONDS)
        proxy.get_all_studies()
    except Exception as error:
        proxy.close()
        if not (isinstance(error, ConnectionError) or _is_rpc_error(error)):
            raise
        reason = "" if isinstance(error, ConnectionError) else " as a storage-server does"
        raise RunError(
            f"storage {shown(url)}: nothing answers there{reason} within {ANSWER_SECONDS} s; "
            "is ftnas storage-server running?"
        ) from None
    return proxy


def is_outage(error: BaseException) -> bool:
    """Return whether ``error`` is of a storage that does not answer now, and may answer later."""
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, StorageInternalError | DBAPIError | OSError):
        return True
    return _is_rpc_error(error) and _rpc_code(error) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def _is_rpc_error(error: BaseException) -> bool:
    import grpc

    return isinstance(error, grpc.RpcError)


def _rpc_code(error: Any) -> str:
    return str(error.code().name)


@contextmanager
def serving(host: str, port: int) -> Iterator[Callable[[], None]]:
    """Serve a storage in memory to gRPC clients during the block, and yield what waits for the server's end.

    Raises:
        RunError: the address cannot be used.
    """
    from concurrent.futures import ThreadPoolExecutor

    with quiet():
        from optuna.storages._grpc.server import make_server

    threads = ThreadPoolExecutor(SERVER_THREADS)
    try:
        server = make_server(InMemoryStorage(), f"[{host}]" if ":" in host else host, port, threads)
        server.start()
    except (RuntimeError, OSError):
        threads.shutdown()
        raise RunError(f"--port {port}: cannot be used on {host}; is it taken? choose another") from None
    try:
        yield server.wait_for_termination
    finally:
        server.stop(grace=1).wait()
        threads.shutdown()
