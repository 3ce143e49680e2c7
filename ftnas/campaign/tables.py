"""Results as plain tables: rows for CSV, one document for JSON, and the faulty weights of a chip."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.campaign.attack import ChipResult, RateResult
from ftnas.campaign.estimates import Estimate, estimate, stratified_estimate
from ftnas.campaign.levels import Faults, levels_of
from ftnas.campaign.outcomes import DENOMINATORS, MEANINGS
from ftnas.campaign.records import Content
from ftnas.campaign.samples import changed_shares
from ftnas.campaign.strata import SingleResult, StratumResult
from ftnas.campaign.subject import undisturbed
from ftnas.errors import CampaignError
from ftnas.faults import inject
from ftnas.quantization import weighted_layers

Row = dict[str, Any]


def rows(result: ChipResult | SingleResult) -> list[Row]:
    """Return one row for each rate, or for each stratum and then the network: plain numbers and texts."""
    if isinstance(result, ChipResult):
        return [_rate_row(rate, result) for rate in result.rates]
    network = [result.network] if result.network and len(result.strata) > 1 else []
    return [_stratum_row(stratum) for stratum in (*result.strata, *network)]


def layer_rows(result: SingleResult) -> list[Row]:
    """Return what faults in each layer do: the share of (fault, image) pairs whose answer changes.

    Within a layer every bit counts alike, however the campaign shared its faults out. Where faults were not drawn
    alike over a layer's bits, and a bit of it got none, the layer has no estimate, and its row no mean.
    """
    cells = _cells(result)
    return [_layer_row(result, name, values, bits, cells) for name, values, bits in result.population.sites]


def layer_bit_rows(result: SingleResult) -> list[Row]:
    """Return what faults in each bit of each layer do; a bit in which nothing was injected has no mean."""
    kinds = len(result.population.kinds)
    cells = _cells(result)
    return [
        {"site": name, "bit": bit, "size": values * kinds}
        | _changed(cells.get((name, bit), []), result, values * kinds)
        for name, values, bits in result.population.sites
        for bit in range(bits)
    ]


def document(result: ChipResult | SingleResult) -> dict[str, Any]:
    """Return all that a reader needs: settings, seed, versions, population, rows, and what every share is of."""
    common = {
        "settings": dict(result.header),
        "accuracy_without_faults": result.accuracy,
        "margin": result.margin,
        "margin_reached": result.reached,
        "missing_units": result.missing,
        "denominators": dict(DENOMINATORS),
        "meanings": dict(MEANINGS),
        "rows": rows(result),
    }
    if isinstance(result, ChipResult):
        return {"population": result.population, "unit": "chip", "units": result.chips} | common
    single = {
        "by": result.by,
        "allocation": result.allocation,
        "critical_share": result.critical,
        "layers": layer_rows(result),
    }
    population = {"population": result.population.describe(), "population_size": result.population.size}
    return population | {"unit": "fault", "units": len(result.units)} | single | common


def to_csv(table: Sequence[Row]) -> str:
    """Return ``table`` as CSV; a number that is not there is an empty cell."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in table for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in table)
    return text.getvalue()


def faulty_state_dict(
    model: nn.Module, faults: Faults, chip: int = 0, *, study: str = "campaign", rate: float | None = None
) -> dict[str, Tensor]:
    """Return the state of ``model`` with the weights that ``chip`` computes with, for those who build the hardware.

    The weights are values on the grid of their format, faulty where the chip is. To load them back and run the model
    is not the same as ``inject``: a range that follows its largest weight follows a faulty one, too.

    Args:
        model: with quantised layers; left as it is.
        faults: models or texts, at one rate.
        chip: number of the chip in the study.
        study: of the campaign.
        rate: of the first model, instead of its own.

    Raises:
        CampaignError: the faults list several rates.
        FaultError: a fault is impossible.
    """
    levels = levels_of(faults, None if rate is None else [rate])
    if len(levels) > 1:
        raise CampaignError(f"faults: {len(levels)} rates; allowed is one for the weights of a chip")
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    with undisturbed(model), torch.no_grad(), inject(model, levels[0].faults, chip=chip, study=study):
        for path, layer in weighted_layers(model).items():
            name = f"{path}.weight" if path else "weight"
            state[name] = layer.quantized_weight(layer.weight, layer.quantization).detach().clone()
    return state


def _rate_row(rate: RateResult, result: ChipResult) -> Row:
    accuracy = rate.accuracy
    first = {"rate": rate.rate, "faults": " + ".join(rate.faults), "chips": accuracy.units}
    others = {name: found for name, found in rate.shares.items() if name != "correct_after"}
    ends = {"accuracy_lowest": accuracy.lowest, "accuracy_highest": accuracy.highest}
    counts = {f"faults_{name}": count for name, count in rate.counts.items()}
    return first | _named("accuracy", accuracy) | ends | _all_named(others) | counts | _way(accuracy)


def _stratum_row(found: StratumResult) -> Row:
    stratum = found.stratum
    first = {"stratum": stratum.name, "site": stratum.site, "bit": stratum.bit, "size": stratum.size}
    counts = {"injected": found.injected, "ineffective": found.ineffective}
    return first | counts | _all_named(found.shares) | _way(found.shares["changed"])


def _all_named(shares: Mapping[str, Estimate]) -> Row:
    row: Row = {}
    for name, found in shares.items():
        row |= _named(name, found)
    return row


def _named(name: str, found: Estimate) -> Row:
    return {name: found.mean, f"{name}_low": found.interval.low, f"{name}_high": found.interval.high}


def _way(found: Estimate) -> Row:
    """Return how the row's main interval was made."""
    return {"confidence": found.interval.confidence, "method": found.interval.method}


def _cells(result: SingleResult) -> dict[tuple[str, int], list[Content]]:
    """Return the records by site and bit."""
    cells: dict[tuple[str, int], list[Content]] = {}
    for unit in result.units:
        cells.setdefault((unit["site"], unit["bit"]), []).append(unit)
    return cells


def _layer_row(
    result: SingleResult, name: str, values: int, bits: int, cells: Mapping[tuple[str, int], list[Content]]
) -> Row:
    kinds = len(result.population.kinds)
    row = {"site": name, "values": values, "bits": bits, "size": values * bits * kinds}
    by_bit = [cells.get((name, bit), []) for bit in range(bits)]
    every = [unit for units in by_bit for unit in units]
    if result.by in ("network", "layer") or not all(by_bit):
        drawn_alike = result.by in ("network", "layer")
        return row | _changed(every if drawn_alike else [], result, values * bits * kinds)
    strata = [(values * kinds, changed_shares(units)) for units in by_bit]
    return row | {"injected": len(every)} | _plain(stratified_estimate(strata, result.confidence))


def _changed(units: Sequence[Content], result: SingleResult, size: int) -> Row:
    row: Row = {"injected": len(units)}
    if not units:
        return row | {"mean": None, "low": None, "high": None}
    return row | _plain(estimate(changed_shares(units), result.confidence, population=size))


def _plain(found: Estimate) -> Row:
    return {"mean": found.mean, "low": found.interval.low, "high": found.interval.high} | _way(found)
