"""Where a storage is, as it may be printed."""

from __future__ import annotations

from pathlib import Path

KINDS = "sqlite:///FILE, postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE, grpc://HOST:PORT"
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""What SQLAlchemy calls the databases whose driver a user need not name."""


def shown(place: Path | str) -> str:
    """Return ``place`` as it may be printed: without a password."""
    if isinstance(place, Path):
        return str(place)
    before, at, after = place.rpartition("@")
    scheme, separator, user = before.partition("://")
    if not (at and separator):
        return place
    name, colon, _ = user.partition(":")
    return f"{scheme}://{name}{':***' if colon else ''}@{after}"
