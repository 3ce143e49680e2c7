"""What the commands print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ftnas.campaign import ChipResult, Estimate, SingleResult
from ftnas.pipeline.campaigns import TABLE
from ftnas.pipeline.run import RunSummary
from ftnas.space import bundled_spaces, load_space

MOST_STRATA = 20

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


def print_chips(result: ChipResult, out: Path) -> None:
    """Print accuracy and outcomes at each rate, what the chips stand for, and whether the margin was reached."""
    console = Console()
    title = f"{result.chips} chips, {100 * result.accuracy:.2f} % without faults"
    table = Table("rate", "accuracy %", "worst chip", "changed %", "no answer %", "faults a chip", title=title)
    for rate in result.rates:
        changed, due = rate.shares["changed"], rate.shares["due"]
        table.add_row(
            f"{rate.rate:g}", _estimate(rate.accuracy), f"{100 * rate.accuracy.lowest:.1f}", _estimate(changed),
            _estimate(due), f"{rate.counts['applied'] / result.chips:,.1f}",
        )  # fmt: skip
    if result.rates:
        console.print(table)
        console.print(_way(result.rates[0].accuracy), soft_wrap=True)
    console.print(f"population: {result.population}", soft_wrap=True)
    _print_end(console, result, out)


def print_single(result: SingleResult, out: Path) -> None:
    """Print what single faults do in the network and by stratum, what was drawn from, and where the rest lies."""
    console = Console()
    shown = sorted(result.strata, key=lambda found: -found.shares["changed"].mean)[:MOST_STRATA]
    network = [result.network] if result.network and len(result.strata) > 1 else []
    title = f"{len(result.units):,} single faults, {100 * result.accuracy:.2f} % without faults"
    table = Table("stratum", "faults", "of", "changed %", "critical %", "masked %", title=title)
    for found in (*network, *shown):
        shares = [_estimate(found.shares[name], digits=3) for name in ("changed", "critical", "masked")]
        table.add_row(found.stratum.name, f"{found.injected:,}", f"{found.stratum.size:,}", *shares)
    console.print(table)
    if len(shown) < len(result.strata):
        console.print(
            f"the {len(shown)} worst of {len(result.strata)} strata; all are in {out / TABLE}", soft_wrap=True
        )
    for found in (*network, *shown)[:1]:
        console.print(_way(found.shares["changed"]), soft_wrap=True)
    console.print(f"critical: changes the answer to at least {100 * result.critical:g} % of the images")
    console.print(f"population: {result.population.describe()}", soft_wrap=True)
    _print_end(console, result, out)


def _print_end(console: Console, result: ChipResult | SingleResult, out: Path) -> None:
    """Print what is missing, and where the results are."""
    if result.reached is False:
        console.print(f"[yellow]warning:[/] the margin of {result.margin:g} was not reached", soft_wrap=True)
    if result.missing:
        console.print(f"{result.missing:,} units are left to other shards; then run this without --shard to join them")
    else:
        console.print(f"results: {out}", soft_wrap=True)


def _estimate(found: Estimate, digits: int = 2) -> str:
    """Return a mean and its interval in percent."""
    low, high = found.interval.low, found.interval.high
    return f"{100 * found.mean:.{digits}f} ({100 * low:.{digits}f} .. {100 * high:.{digits}f})"


def _way(found: Estimate) -> str:
    return f"intervals: {100 * found.interval.confidence:.4g} %, {found.interval.method}"


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
