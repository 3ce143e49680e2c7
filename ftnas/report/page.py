"""The report: one HTML file that needs nothing but itself, beside it its figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ftnas import __version__
from ftnas.errors import RunError
from ftnas.files import write_text
from ftnas.report import wording
from ftnas.report.figures import Figure, by_section, figures, write_figures
from ftnas.report.record import RunRecord, read_run
from ftnas.report.run_tables import Table, tables, write_tables
from ftnas.report.run_view import run_view
from ftnas.report.several import Entry, entries_of, overview, overview_figures, winners_table


def write_report(run: Path) -> Path:
    """Write ``report.html``, ``figures/`` and ``tables/`` into the run folder and return the report's path.

    A run that is not finished gives a report of what is there, which says what is missing.

    Raises:
        RunError: ``run`` is no run folder, or one of its files is corrupt.
    """
    return _write_run(read_run(run), run / "report.html", "")


def write_reports(runs: Sequence[Path], out: Path) -> Path:
    """Write one page of one run, or of several side by side, to ``out`` and return that.

    Figures and tables go into folders beside it: of ``all.html``, into ``all_figures/`` and ``all_tables/``, where
    each of several runs has a folder of its own.

    Raises:
        RunError: one of ``runs`` is no run folder, is given twice or is corrupt, or ``out`` is a folder.
    """
    if out.is_dir():
        raise RunError(f"{out}: is a folder; name the file to write, such as {out / 'report.html'}")
    records = [read_run(run) for run in runs]
    if len(records) == 1:
        return _write_run(records[0], out, f"{out.stem}_")
    entries = entries_of(records)
    drawn = [figures(entry.record) for entry in entries]
    page = _several_page(entries, drawn, beside=f"{out.stem}_")
    for number, (entry, found) in enumerate(zip(entries, drawn, strict=True), start=1):
        inside = f"{number}_{entry.record.name}"
        write_figures(found, out.parent / f"{out.stem}_figures" / inside)
        write_tables(tables(entry.record), out.parent / f"{out.stem}_tables" / inside)
    winners = winners_table(entries)
    return _write(page, out, f"{out.stem}_", overview_figures(entries), [winners] if winners else [])


def render(template: str, **content: Any) -> str:
    """Return a page as HTML text.

    Args:
        template: its file in this package.
        content: what the template shows.
    """
    templates = Environment(
        loader=PackageLoader("ftnas.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(kibibytes=wording.kibibytes, megaflops=wording.megaflops)
    return templates.get_template(template).render(version=__version__, **content)


def _write_run(record: RunRecord, out: Path, beside: str) -> Path:
    found = figures(record)
    view = run_view(record, found, title=record.name)
    page = render("run_page.html.jinja", title=record.name, view=view, beside=beside)
    return _write(page, out, beside, found, tables(record))


def _several_page(entries: Sequence[Entry], drawn: Sequence[Sequence[Figure]], *, beside: str) -> str:
    views = [
        {**run_view(entry.record, found, title=entry.title, prefix=f"run-{number}-"), "colour": entry.colour}
        for number, (entry, found) in enumerate(zip(entries, drawn, strict=True), start=1)
    ]
    return render(
        "runs_page.html.jinja",
        title=f"{len(entries)} runs side by side",
        overview=overview(entries),
        figures=by_section(overview_figures(entries)),
        views=views,
        beside=beside,
    )


def _write(page: str, out: Path, beside: str, found: Sequence[Figure], lists: Sequence[Table]) -> Path:
    """Write the page last, so that it never speaks of files that are not there."""
    write_figures(found, out.parent / f"{beside}figures")
    write_tables(lists, out.parent / f"{beside}tables")
    write_text(out, page)
    return out
