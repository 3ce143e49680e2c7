"""Opening a database in which a search and its workers meet. The one door to SQLAlchemy."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from ftnas.errors import RunError
from ftnas.search.places import DRIVERS, KINDS, shown

SQLITE_SECONDS = 60  # to wait for the lock of a file
ATTEMPTS = 3
PACKAGES = {"postgresql+psycopg": '"ftnas[postgresql]"', "mysql": "mysqlclient", "mysql+pymysql": "pymysql"}

_WRONG = (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, KeyError, IndexError, ValueError)


def open_database(url: str, *, answer_seconds: int) -> BaseStorage:
    """Return the storage in the database at ``url``, with its tables made where there are none.

    Args:
        answer_seconds: how long a server may take to answer.

    Raises:
        RunError: it does not answer, its driver is missing, or it is none.
    """
    scheme, _, rest = url.partition("://")
    full = f"{DRIVERS.get(scheme, scheme)}://{rest}"
    for attempt in range(ATTEMPTS):
        try:
            backend = RDBStorage(full, engine_kwargs=_engine_options(full, answer_seconds))
        except _WRONG as error:
            # Of two processes that make the tables of an empty database at once, one fails, and then finds them.
            if isinstance(error, ProgrammingError | IntegrityError) and attempt + 1 < ATTEMPTS:
                continue
            raise RunError(f"storage {shown(url)}: {_reason(error, full)}") from None
        if backend.engine.dialect.name == "sqlite":
            _make_claims_atomic(backend.engine)
        elif backend.engine.dialect.name == "postgresql":
            _wait_for_no_disk(backend.engine)
        return get_storage(backend)
    raise AssertionError("the last attempt returns or raises")


def _engine_options(url: str, answer_seconds: int) -> dict[str, Any]:
    """Return what lets a connection to ``url`` fail in time.

    None is tried before it is used, which would cost as much as using it: who meets a lost one tries again.
    """
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": SQLITE_SECONDS}}
    options: dict[str, Any] = {"connect_timeout": answer_seconds // 2}
    if url.startswith("postgresql+psycopg"):
        options |= {"tcp_user_timeout": 1000 * answer_seconds}
    return {"connect_args": options, "pool_pre_ping": False}


def _make_claims_atomic(engine: sqlalchemy.Engine) -> None:
    """Let each of SQLite's transactions begin with its lock, so that none writes on what it read before another wrote.

    Python's driver would begin it with the first change: then two workers could claim one task.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        # With a log ahead of the file, a change waits for the disk only now and then.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before these


def _wait_for_no_disk(engine: sqlalchemy.Engine) -> None:
    """Let PostgreSQL answer before its disk does: the study's journal is the record, and tasks can be put up again."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit TO OFF")
        connection.commit()

    engine.dispose()


def _reason(error: Exception, url: str) -> str:
    """Return what is wrong with the database at ``url``, in one line without its password."""
    if isinstance(error, ImportError):
        scheme = url.partition("://")[0]
        package = PACKAGES.get(scheme, "its driver, as SQLAlchemy's documentation names it")
        return f"its driver is not installed: pip install {package}"
    if isinstance(error, NoSuchModuleError):
        return f"SQLAlchemy knows no such driver; choose from {KINDS}"
    if isinstance(error, ArgumentError | KeyError | IndexError | ValueError):
        return f"is not a URL of a database; choose from {KINDS}"
    told = str(getattr(error, "orig", None) or error.__cause__ or error).strip() or type(error).__name__
    password = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    line = " ".join(told.split())
    return "cannot be used: " + (line.replace(password, "***") if password else line)
