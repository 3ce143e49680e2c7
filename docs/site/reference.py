"""Write what the pages hold of the code: `python docs/site/reference.py`.

A page marks where, such as `<!-- keys ftnas.pipeline.config:RunConfig -->` ... `<!-- end -->` for a table of keys,
`<!-- api ftnas.faults -->` for what a module offers and `<!-- faults -->` for the catalogue. A test tells of a page
that is out of date.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from catalogue import baselines, faults, operators
from keys import keys, sections
from names import api

DOCS = Path(__file__).parents[1]
OF_CODE: Mapping[str, Callable[..., str]] = {"keys": keys, "sections": sections, "api": api}
TABLES: Mapping[str, Callable[[], str]] = {"faults": faults, "operators": operators, "baselines": baselines}
MARKED = re.compile(
    rf"<!-- (?P<kind>{'|'.join([*OF_CODE, *TABLES])})(?: (?P<what>[\w.: ]+))? -->\n.*?<!-- end -->", re.DOTALL
)


def filled(page: str) -> str:
    """Return the text of a page with every marked part written anew."""

    def fill(part: re.Match[str]) -> str:
        first, last = part[0].splitlines()[0], part[0].splitlines()[-1]
        kind, what = part["kind"], part["what"]
        text = TABLES[kind]() if what is None else OF_CODE[kind](*map(_found, what.split()))
        return f"{first}\n\n{text}\n\n{last}"

    return MARKED.sub(fill, page)


def _found(what: str) -> Any:
    module, _, name = what.partition(":")
    return getattr(importlib.import_module(module), name) if name else importlib.import_module(module)


def main() -> None:
    """Bring every page up to date."""
    for path in sorted(DOCS.rglob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(DOCS.parent)} is new\n")


if __name__ == "__main__":
    main()
