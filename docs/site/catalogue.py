"""What can be named, as tables: fault models with their options and hardware, operators, baselines."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields

from names import markdown

from ftnas.cli import catalogue
from ftnas.faults import FAULTS, Fault
from ftnas.faults.models import CHOICES, COUNTS

TITLES: Mapping[str, str] = {
    "bit_flip": "Bit flips",
    "stuck_bit": "Stuck bits",
    "directed_flip": "Directed flips",
    "random_value": "Random values",
    "stuck_cell": "Stuck cells (adSAF, whole weight)",
    "bitwise_stuck_cell": "Stuck cells, bit by bit (adSAF, bitwise)",
    "log_normal": "Log-normal variation",
    "gaussian": "Gaussian noise",
    "bit_bias": "Bit bias (iBB)",
    "mac_bit_bias": "Bit bias by multiply-accumulates (MiBB)",
    "pattern": "Patterns of outputs",
}
COMMON = ("scope", "duration", "activity")


def faults() -> str:
    """Return the catalogue: for each model what it is, its options, and the hardware that each of its forms is for."""
    return "\n\n".join(_fault(model, title) for model, title in TITLES.items())


def _fault(model: str, title: str) -> str:
    names = [name for name in FAULTS if name.partition(".")[2] == model]
    fault = FAULTS[names[0]](0.0)
    about = markdown(inspect.getdoc(type(fault)) or "")
    rows = [f"| `{name}` | {words.hardware} | {words.source} |" for name in names for words in [catalogue.FAULTS[name]]]
    table = "\n".join(["| text | hardware | source |", "|---|---|---|", *rows])
    return f"### {title}\n\n{about}\n\n{table}\n\nClass `{type(fault).__name__}`. {_options(fault)}"


def _options(fault: Fault) -> str:
    """Return the options of one model in full, those of all models by name and default."""
    options = [field for field in fields(fault) if field.name not in (fault.strength, "target")]
    own = [f"`{f.name}` (`{f.default}`): {_allowed(f.name)}" for f in options if f.name not in COMMON]
    common = [f"`{f.name}`" + (f" (`{f.default}`)" if f.default else "") for f in options if f.name in COMMON]
    return f"Options and their defaults: {'; '.join([*own, ', '.join(common)])}."


def _allowed(name: str) -> str:
    if name in CHOICES:
        return ", ".join(f"`{choice}`" for choice in CHOICES[name])
    return "a whole number from 1 to 64" if name in COUNTS else "a number from 0 to 1"


def operators() -> str:
    """Return the table of what an edge may apply."""
    rows = [f"| `{name}` | {what} |" for name, what in catalogue.OPERATORS.items()]
    return "\n".join(["| operator | what it is |", "|---|---|", *rows])


def baselines() -> str:
    """Return the table of published networks."""
    rows = [f"| `{name}` | {words.what} | {words.source} |" for name, words in catalogue.BASELINES.items()]
    return "\n".join(["| baseline | what it is | source |", "|---|---|---|", *rows])
