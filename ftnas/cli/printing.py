"""What the commands print: a table for people, or with ``as_json`` the same as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ftnas.campaign import ChipResult, Estimate, SingleResult, document
from ftnas.cli.output import console, print_json, print_table, print_warning, right, table
from ftnas.faults.sites import Site, Sites
from ftnas.pipeline.campaigns import TABLE
from ftnas.pipeline.families import SearchFinding
from ftnas.pipeline.run import RunSummary
from ftnas.report import wording

MOST_STRATA = 20
OUTCOMES = {"changed": "changed %", "due": "no answer %"}
# What is counted on a chip: of spiking graphs only the numbers that read otherwise are known.
COUNTED = {"applied": "faults a chip", "effective": "changed numbers a chip"}

TAUS = (
    ("tau_clean", "supernet, clean"),
    ("tau_faulty", "supernet, faulty"),
    ("tau_flops", "FLOPs alone, faulty"),
    ("tau_parameters", "parameters alone, faulty"),
)


def print_found(found: RunSummary | SearchFinding, *, as_json: bool = False) -> None:
    """Print what a search of any family has found."""
    if isinstance(found, RunSummary):
        return print_summary(found, as_json=as_json)
    if as_json:
        return print_json({**found.results, "folder": str(found.folder), "report": str(found.report)})
    output = console()
    first, *numbers = found.columns
    nets = table(first, *map(right, numbers))
    for row in found.rows:
        nets.add_row(*row)
    print_table(output, nets, found.title)
    for note in found.notes:
        output.print(note, soft_wrap=True)
    output.print(f"report: {found.report}", soft_wrap=True)


def print_summary(summary: RunSummary, *, as_json: bool = False) -> None:
    """Print the winner, how far the ranking can be trusted, and the comparison."""
    if not as_json:
        _print_ranking(console(), summary.ranking)
    print_comparison(summary, warnings=summary.warnings, as_json=as_json)


def print_comparison(summary: RunSummary, *, warnings: Sequence[str] = (), as_json: bool = False) -> None:
    """Print the comparison, and ``warnings`` below it."""
    if as_json:
        return print_json(asdict(summary) | {"folder": str(summary.folder), "report": str(summary.report)})
    output = console()
    _print_table(output, summary.comparison)
    for warning in warnings:
        print_warning(output, warning)
    output.print(f"report: {summary.report}", soft_wrap=True)


def print_sites(sites: Sites, *, as_json: bool = False) -> None:
    """Print what can fail: a line for each weight and output, and their totals."""
    if as_json:
        return print_json([_site(site) for site in sites])
    console().print(str(sites), soft_wrap=True, highlight=False)


def print_chips(result: ChipResult, out: Path, *, as_json: bool = False) -> None:
    """Print accuracy and outcomes at each rate, what the chips stand for, and whether the margin was reached."""
    if as_json:
        return print_json({"results": str(out), **document(result)})
    output = console()
    title = f"{result.chips} chips, {100 * result.accuracy:.2f} % without faults"
    if result.rates:
        shares = {name: words for name, words in OUTCOMES.items() if name in result.rates[0].shares}
        [counted] = [name for name in COUNTED if name in result.rates[0].counts][:1]
        rates = table(*map(right, ("rate", "accuracy %", "worst chip", *shares.values(), COUNTED[counted])))
        for rate in result.rates:
            found = [_estimate(rate.shares[name]) for name in shares]
            count = f"{rate.counts[counted] / result.chips:,.1f}"
            rates.add_row(
                f"{rate.rate:g}", _estimate(rate.accuracy), f"{100 * rate.accuracy.lowest:.1f}", *found, count
            )
        print_table(output, rates, title)
        output.print(_way(result.rates[0].accuracy), soft_wrap=True)
    output.print(f"population: {result.population}", soft_wrap=True)
    _print_end(output, result, out)


def print_single(result: SingleResult, out: Path, *, as_json: bool = False) -> None:
    """Print what single faults do in the network and by stratum, what was drawn from, and where the rest lies."""
    if as_json:
        return print_json({"results": str(out), **document(result)})
    output = console()
    shown = sorted(result.strata, key=lambda found: -found.shares["changed"].mean)[:MOST_STRATA]
    network = [result.network] if result.network and len(result.strata) > 1 else []
    title = f"{len(result.units):,} single faults, {100 * result.accuracy:.2f} % without faults"
    names = ("faults", "of", "changed %", "critical %", "masked %")
    strata = table("stratum", *map(right, names))
    for found in (*network, *shown):
        shares = [_estimate(found.shares[name], digits=3) for name in ("changed", "critical", "masked")]
        strata.add_row(found.stratum.name, f"{found.injected:,}", f"{found.stratum.size:,}", *shares)
    print_table(output, strata, title)
    if len(shown) < len(result.strata):
        output.print(f"the {len(shown)} worst of {len(result.strata)} strata; all are in {out / TABLE}", soft_wrap=True)
    for found in (*network, *shown)[:1]:
        output.print(_way(found.shares["changed"]), soft_wrap=True)
    output.print(f"critical: changes the answer to at least {100 * result.critical:g} % of the images")
    output.print(f"population: {result.population.describe()}", soft_wrap=True)
    _print_end(output, result, out)


def _print_end(output: Console, result: ChipResult | SingleResult, out: Path) -> None:
    """Print what is missing, and where the results are."""
    if result.reached is False:
        print_warning(output, f"the margin of {result.margin:g} was not reached")
    if result.missing:
        output.print(f"{result.missing:,} units are left to other shards; then run this without --shard to join them")
    else:
        output.print(f"results: {out}", soft_wrap=True)


def _estimate(found: Estimate, digits: int = 2) -> str:
    """Return a mean and its interval in percent."""
    low, high = found.interval.low, found.interval.high
    return f"{100 * found.mean:.{digits}f} ({100 * low:.{digits}f} .. {100 * high:.{digits}f})"


def _way(found: Estimate) -> str:
    return f"intervals: {100 * found.interval.confidence:.4g} %, {found.interval.method}"


def _site(site: Site) -> dict[str, Any]:
    known = site.shape is not None
    return {
        "name": site.name,
        "kind": site.kind,
        "layer": site.layer,
        "shape": None if site.shape is None else [*site.shape],
        "format": None if site.number is None else str(site.number),
        "bits": site.bits,
        "macs_per_value": site.macs_per_value,
        "values": site.values if known else None,
        "bits_total": site.bits_total if known else None,
    }


def _print_ranking(output: Console, ranking: dict[str, Any]) -> None:
    names = ("value", "95 % interval")
    taus = table("Kendall's tau with short trainings", *map(right, names))
    for key, label in TAUS:
        if key in ranking:
            tau = ranking[key]
            taus.add_row(label, f"{tau['value']:+.2f}", f"{tau['low']:+.2f} .. {tau['high']:+.2f}")
    print_table(output, taus, f"{ranking['n']} nets")
    gain = ranking.get("gain_over_random")
    if gain is not None:
        output.print(
            f"gain of the leaders over {gain['n']} random cells: {100 * gain['mean']:+.1f} points "
            f"({100 * gain['low']:+.1f} .. {100 * gain['high']:+.1f})"
        )


def _print_table(output: Console, comparison: dict[str, Any]) -> None:
    title = f"{comparison['fault']}, {comparison['chips']} chips, test images, 95 % interval over chips"
    rates = [f"{rate['rate']:g}" for rate in comparison["rows"][0]["rates"]]
    nets = table("network", "training", *map(right, ("MFLOPs", "parameters", "clean", *rates)))
    for row in comparison["rows"]:
        cells = [wording.plus_minus(rate["mean"], rate["low"], rate["high"]) for rate in row["rates"]]
        nets.add_row(
            row["label"], row["training"], f"{row['flops'] / 1e6:.3f}", f"{row['parameters']:,}",
            f"{100 * row['clean']:.1f}", *cells,
        )  # fmt: skip
    print_table(output, nets, title)
