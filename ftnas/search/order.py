"""The order of a study's proposals as a file, for another search to propose in the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftnas.errors import RunError
from ftnas.files import read_json, write_json
from ftnas.search.ledger import Order
from ftnas.space import SearchSpace

ORDER = "order.json"


def write_order(path: Path, order: Order) -> None:
    """Write the proposals, refused and repeated ones included."""
    write_json(path, [{"source": source, "choices": dict(choices)} for source, choices in order])


def read_order(path: Path, space: SearchSpace) -> Order:
    """Return the proposals in ``path``: a file, or a run folder that has one.

    Raises:
        RunError: the file is missing or damaged, or holds a proposal that ``space`` does not have.
    """
    file = path / "study" / ORDER if path.is_dir() else path
    rows = read_json(file)
    if not isinstance(rows, list):
        raise RunError(f"{file}: a list of proposals is needed, found {type(rows).__name__}")
    return [_proposal(file, number, row, space) for number, row in enumerate(rows)]


def _proposal(file: Path, number: int, row: Any, space: SearchSpace) -> tuple[str, dict[str, int]]:
    if not isinstance(row, dict) or not isinstance(row.get("choices"), dict):
        raise RunError(f"{file}: proposal {number} is not a mapping of source and choices")
    choices = row["choices"]
    options = {decision.name: decision.options for decision in space.decisions()}
    if set(choices) != set(options):
        name = min(set(choices) ^ set(options))
        raise RunError(f"{file}: proposal {number} is of another space than {space.name} (decision {name})")
    for name, option in choices.items():
        if type(option) is not int or not 0 <= option < options[name]:
            raise RunError(
                f"{file}: proposal {number}: {name} is {option!r}; allowed in space {space.name} is 0 to "
                f"{options[name] - 1}"
            )
    return str(row.get("source", "replay")), choices
