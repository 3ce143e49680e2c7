"""The tables of a report as CSV, with every digit, and as Markdown, for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftnas.files import write_text
from ftnas.report import wording
from ftnas.report.record import RunRecord
from ftnas.report.results import Correlation, Ranking, Scored, Vulnerability
from ftnas.report.tables import comparison_csv, comparison_markdown, markdown_table

ORDERINGS = {
    "tau_faulty": "score under faults",
    "tau_clean": "score without faults",
    "tau_flops": "FLOPs alone",
    "tau_parameters": "parameters alone",
}


@dataclass(frozen=True)
class Table:
    """A table by the name of its files."""

    name: str
    csv: str
    markdown: str


def tables(record: RunRecord) -> tuple[Table, ...]:
    """Return the tables that the run has data for."""
    return tuple(_tables(record))


def write_tables(found: Iterable[Table], folder: Path) -> None:
    """Write each table as ``NAME.csv`` and ``NAME.md``."""
    for table in found:
        write_text(folder / f"{table.name}.csv", table.csv)
        write_text(folder / f"{table.name}.md", table.markdown)


def _tables(record: RunRecord) -> Iterator[Table]:
    if record.front_rows:
        yield _front(record.front_rows)
    if record.comparison:
        rows = record.comparison.rows
        yield Table("comparison", comparison_csv(rows), comparison_markdown(rows, rate=record.comparison.rate))
    if record.vulnerability and record.vulnerability.layers:
        yield _layers(record.vulnerability)
    if record.ranking and correlations(record.ranking):
        yield _ranking(record.ranking)


def _front(rows: Sequence[Scored]) -> Table:
    kept = ("key", "trial", "source", "clean", "faulty", "macs", "flops", "parameters", "weight_bits")
    lines = [{name: getattr(row, name) for name in kept} | {"genotype": _cells(row)} for row in rows]
    head = ("genotype's key", "faulty (shared weights)", "clean (shared weights)", "MFLOPs", "parameters", "cells")
    cells = [
        (
            row.key,
            wording.percent(row.faulty),
            wording.percent(row.clean),
            wording.megaflops(row.flops),
            f"{row.parameters:,}",
            _cells(row),
        )
        for row in rows
    ]
    return Table("front", to_csv(lines), markdown_table(head, cells, words=("cells", head[0])))


def _cells(row: Scored) -> str:
    return "" if row.genotype is None else "; ".join(wording.cell_lines(row.genotype))


def _layers(found: Vulnerability) -> Table:
    lines, cells = [], []
    for layer in found.layers:
        shares = {"accuracy": layer.accuracy, "changed": layer.changed}
        ends = {
            f"{name}_{end}": getattr(share, end) for name, share in shares.items() for end in ("mean", "low", "high")
        }
        kept = {name: getattr(layer, name) for name in ("name", "kind", "macs", "weights", "outputs")}
        lines.append({**kept, "fault": found.fault, "rate": found.rate, "clean": found.clean, **ends})
        lost = f"{100 * (found.clean - layer.accuracy.mean):.2f}"
        changed = f"{wording.percent(layer.changed.mean)} ({wording.interval(layer.changed.low, layer.changed.high)})"
        cells.append((layer.name, lost, changed, f"{layer.macs:,}", f"{layer.weights:,}", f"{layer.outputs:,}"))
    head = ("layer that fails", "accuracy lost (points)", "answers changed", "MACs", "weights", "outputs")
    return Table("layers", to_csv(lines), markdown_table(head, cells, words=head[:1]))


def correlations(ranking: Ranking) -> list[tuple[str, Correlation]]:
    """Return by what scores were ordered, and how well that agrees with the order after training."""
    found = [(words, getattr(ranking, name)) for name, words in ORDERINGS.items()]
    return [(words, tau) for words, tau in found if tau is not None]


def _ranking(ranking: Ranking) -> Table:
    taus = correlations(ranking)
    lines = [{"ordered_by": words, **tau.model_dump(), "n": ranking.n} for words, tau in taus]
    cells = [(words, f"{tau.value:.2f}", f"{tau.low:.2f} to {tau.high:.2f}") for words, tau in taus]
    return Table("ranking", to_csv(lines), markdown_table(("ordered by", "Kendall's tau", "95 % interval"), cells))


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return ``rows``, which have the same keys, as CSV with a heading; ``None`` is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
