"""What the commands print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ftnas.pipeline.run import RunSummary
from ftnas.space import bundled_spaces, load_space

TAUS = (
    ("tau_clean", "supernet, clean"),
    ("tau_faulty", "supernet, faulty"),
    ("tau_flops", "FLOPs alone, faulty"),
    ("tau_parameters", "parameters alone, faulty"),
)


def print_summary(summary: RunSummary) -> None:
    """Print the winner, how far the ranking can be trusted, and the comparison."""
    console = Console()
    _print_ranking(console, summary.ranking)
    _print_table(console, summary.comparison)
    for warning in summary.warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    console.print(f"report: {summary.report}", soft_wrap=True)


def print_comparison(summary: RunSummary) -> None:
    """Print the comparison."""
    console = Console()
    _print_table(console, summary.comparison)
    console.print(f"report: {summary.report}", soft_wrap=True)


def print_spaces() -> None:
    """Print name, size and description of every bundled space."""
    table = Table("space", "architectures", "operators", "what it is for")
    for name in bundled_spaces():
        space = load_space(name)
        table.add_row(name, f"{space.size:.2g}", str(len(space.operators)), space.description)
    Console().print(table)


def _print_ranking(console: Console, ranking: dict[str, Any]) -> None:
    table = Table("Kendall's tau with short trainings", "value", "95 % interval", title=f"{ranking['n']} nets")
    for key, label in TAUS:
        if key in ranking:
            tau = ranking[key]
            table.add_row(label, f"{tau['value']:+.2f}", f"{tau['low']:+.2f} .. {tau['high']:+.2f}")
    console.print(table)
    gain = ranking.get("gain_over_random")
    if gain is not None:
        console.print(
            f"gain of the leaders over {gain['n']} random cells: {100 * gain['mean']:+.1f} points "
            f"({100 * gain['low']:+.1f} .. {100 * gain['high']:+.1f})"
        )


def _print_table(console: Console, comparison: dict[str, Any]) -> None:
    title = f"{comparison['fault']}, {comparison['chips']} chips, test images, 95 % interval over chips"
    table = Table("network", "training", "MFLOPs", "parameters", "clean", title=title)
    for rate in comparison["rows"][0]["rates"]:
        table.add_column(f"{rate['rate']:g}")
    for row in comparison["rows"]:
        cells = [_interval(rate) for rate in row["rates"]]
        table.add_row(
            row["label"], row["training"], f"{row['flops'] / 1e6:.3f}", f"{row['parameters']:,}",
            f"{100 * row['clean']:.1f}", *cells,
        )  # fmt: skip
    console.print(table)


def _interval(rate: dict[str, Any]) -> str:
    return f"{100 * rate['mean']:.1f} ± {50 * (rate['high'] - rate['low']):.1f}"
