"""Fault maps as files: JSON, or CSV as testers of chips write it. What is read is checked against the net."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from ftnas.errors import FaultError, RunError
from ftnas.files import csv_text, read_json, write_json, write_text
from ftnas.spiking.dense.fault_map import SCHEMA, FaultMap, PartFault, check_map
from ftnas.spiking.dense.hardware_faults import Part
from ftnas.spiking.dense.network import SpikingNet

SUFFIXES = (".json", ".csv")
COLUMNS = tuple(field.name for field in fields(PartFault))
NEEDED = ("layer", "part", "kind", "element")
LARGEST = 1e9  # of a value, so that every table can hold it
WHOLE = ("layer", "element", "first", "until")


def save_map(fault_map: FaultMap, path: Path) -> None:
    """Write ``fault_map`` to ``path``, as its name ends.

    Raises:
        FaultError: in neither ``.json`` nor ``.csv``.
    """
    if check_name(path) == ".json":
        return write_json(path, fault_map.to_dict())
    rows = ([_text(getattr(fault, name)) for name in COLUMNS] for fault in fault_map.faults)
    write_text(path, csv_text(COLUMNS, rows))


def load_map(path: Path, net: SpikingNet) -> FaultMap:
    """Read the map in ``path``.

    Raises:
        FaultError: the file holds none, or it does not fit ``net``; one line that says why.
    """
    rows = _json_rows(path) if check_name(path) == ".json" else _csv_rows(path)
    try:
        found = FaultMap(tuple(_fault(row, number) for number, row in enumerate(rows)))
        check_map(found, net)
    except FaultError as error:
        raise FaultError(f"{path}: {error}") from None
    return found


def check_name(path: Path) -> str:
    """Return how the file's name ends.

    Raises:
        FaultError: as no map's does.
    """
    if path.suffix not in SUFFIXES:
        raise FaultError(f"{path}: a fault map is a file that ends in {' or '.join(SUFFIXES)}")
    return path.suffix


def _json_rows(path: Path) -> list[Any]:
    try:
        content = read_json(path)
    except RunError as error:
        raise FaultError(str(error).partition("; delete")[0]) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("faults"), list):
        raise FaultError(f'{path}: is no fault map (it needs "schema": {SCHEMA} and a list "faults")')
    return list(content["faults"])


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines below the head; an empty cell is as if it were not there."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True))
    except OSError as error:
        raise FaultError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise FaultError(f"{path}: is no CSV ({error})") from None
    head, *rows = lines or [[]]
    if not set(NEEDED) <= set(head) <= set(COLUMNS) or len(set(head)) < len(head):
        raise FaultError(
            f"{path}: its first line must name the columns {', '.join(NEEDED)} and may name "
            f"{', '.join(COLUMNS[len(NEEDED) :])}, got {','.join(head)!r}"
        )
    for number, row in enumerate(rows):
        if len(row) != len(head):
            raise FaultError(f"{path}: fault {number}: {len(head)} cells are needed, got {len(row)}")
    return [{name: _cell(name, cell) for name, cell in zip(head, row, strict=True) if cell} for row in rows]


def _text(value: object) -> object:
    """Return what stands in a cell: nothing for ``None``, no point behind a whole number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return "" if value is None else value


def _cell(name: str, text: str) -> Any:
    """Return the number that ``text`` is, or the text, which is then refused where a number is needed."""
    if name in ("part", "kind"):
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _fault(row: object, number: int) -> PartFault:
    if not isinstance(row, Mapping):
        raise FaultError(f"fault {number}: an object with {', '.join(NEEDED)} is needed, got {row!r}")
    for name in NEEDED:
        if name not in row:
            raise FaultError(f"fault {number}: {name} is missing; needed are {', '.join(NEEDED)}")
    for name, value in row.items():
        _check_entry(number, str(name), value)
    return PartFault(**row)


def _check_entry(number: int, name: str, value: Any) -> None:
    """Refuse an unknown name or a value of the wrong type; ranges are for ``check_map``."""
    if name not in COLUMNS:
        raise FaultError(f"fault {number}: unknown key {name!r}; choose from {', '.join(COLUMNS)}")
    if name == "part" and value not in get_args(Part):
        raise FaultError(f"fault {number}: part must be {' or '.join(get_args(Part))}, got {value!r}")
    if name == "kind" and not isinstance(value, str):
        raise FaultError(f"fault {number}: kind must be text, got {value!r}")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in WHOLE and not whole and not (name == "until" and value is None):
        raise FaultError(f"fault {number}: {name} must be a whole number, got {value!r}")
    if name == "value" and not (isinstance(value, float) or whole):
        raise FaultError(f"fault {number}: value must be a number, got {value!r}")
    if name == "value" and not abs(value) <= LARGEST:
        raise FaultError(f"fault {number}: value must be {-LARGEST:g} to {LARGEST:g}, got {value!r}")
