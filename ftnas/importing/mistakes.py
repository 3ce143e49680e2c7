"""What is wrong with a file of the user's, said in one line."""

from __future__ import annotations

from pathlib import Path

from ftnas.errors import ModelError

LONGEST = 300


def mistake(file: Path, what: str) -> ModelError:
    """Return the error of ``file``. Names out of it may hold anything: what would not print is a question mark."""
    words = " ".join(what.split())
    plain = "".join(letter if letter.isprintable() else "?" for letter in words)
    return ModelError(f"{file}: {plain[:LONGEST]}")


def said(error: BaseException) -> str:
    """Return kind and message of ``error`` in one line of at most 200 characters."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:200] if message else type(error).__name__
