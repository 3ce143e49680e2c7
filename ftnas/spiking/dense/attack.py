"""Campaigns on layered nets: faults of spiking hardware, those of any quantised net, and maps of given chips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ftnas.campaign.attack import Attack, ChipResult, Conduct, Goal, conduct
from ftnas.campaign.chips import population_of, summed
from ftnas.campaign.levels import check_rates, stepped
from ftnas.campaign.measurement import batch_logits, chip_logits
from ftnas.campaign.outcomes import outcomes
from ftnas.campaign.records import SCHEMA
from ftnas.campaign.subject import BATCH_SIZE, Logits, Subject, as_array, undisturbed
from ftnas.faults import Fault
from ftnas.spiking.dense.fault_map import FaultMap, draw_map, inject_map, joined_maps
from ftnas.spiking.dense.hardware_faults import AnyFault, SpikingFault, divided, parse_any_sweep
from ftnas.spiking.dense.measurement import NOTHING
from ftnas.spiking.dense.network import SpikingNet


@dataclass(frozen=True, slots=True)
class SpikingLevel:
    """Faults of both kinds at one rate, that of the first."""

    rate: float
    faults: tuple[AnyFault, ...]


def spiking_levels(faults: Sequence[AnyFault | str]) -> tuple[SpikingLevel, ...]:
    """Return one level for each rate that ``faults`` list; see ``campaign.levels.levels_of``.

    Raises:
        CampaignError: the rates do not fit together.
        FaultError: a text or rate is impossible.
    """
    steps = stepped([parse_any_sweep(fault) if isinstance(fault, str) else (fault,) for fault in faults])
    levels = tuple(SpikingLevel(float(step[0].rate), tuple(step)) for step in steps)
    check_rates([level.rate for level in levels])
    return levels


def attack_chips(
    net: SpikingNet,
    data: tuple[Tensor, Tensor],
    faults: Sequence[AnyFault | str],
    *,
    goal: Goal,
    how: Conduct,
    study: str = "campaign",
    batch_size: int = BATCH_SIZE,
    given: FaultMap = NOTHING,
) -> ChipResult:
    """Measure ``net`` on faulty chips, as ``campaign.run`` does for other nets.

    Args:
        net: left as it is.
        data: images ``[N, C, H, W]`` and labels ``[N]``.
        faults: of either kind, or their texts, which may list rates.
        goal: when it is sure enough.
        how: where the records go, and who does the work.
        study: chips are the same for every net of one shape and study.
        batch_size: images of one forward pass.
        given: what is broken on every chip beside what is drawn.

    Raises:
        CampaignError: an argument is impossible, or the folder holds another campaign.
        FaultError: a fault is impossible, or the map is of another net.
    """
    subject, levels = Subject(net, *data, batch_size=batch_size), spiking_levels(faults)
    population = f"all chips of study {study!r}, without end; on each, drawn anew: {_population(net, levels[0].faults)}"
    if given:
        population += f"; on all of them {len(given)} faults of a map"
    header = {
        "schema": SCHEMA,
        "campaign": "chips",
        "study": study,
        "faults": [[str(fault) for fault in level.faults] for level in levels],
        "net": net.spec.model_dump(mode="json"),
        "map": given.to_dict()["faults"],
        **subject.describe(),
    }
    with undisturbed(net):
        golden = subject.logits()
        right = float((golden.argmax(1) == subject.answers()).mean())
        measure = _measure(subject, net, levels, golden=golden, study=study, given=given)
        return conduct(Attack(header, population, right, levels, measure), goal, how)


def _measure(
    subject: Subject, net: SpikingNet, levels: Sequence[SpikingLevel], *, golden: Logits, study: str, given: FaultMap
) -> Callable[[int, int, Callable[[], None]], Mapping[str, Any]]:
    """Return what a chip goes through at one level; ``golden`` ``[N, K]`` is what its logits are compared with."""

    def measure(level: int, chip: int, check: Callable[[], None]) -> Mapping[str, Any]:
        spiking, others = divided(levels[level].faults)
        broken = joined_maps(given, draw_map(net, spiking, chip=chip, study=study))
        with inject_map(net, broken) if broken else nullcontext():
            logits, counts = _logits(subject, others, chip=chip, study=study, check=check)
        images = outcomes(golden, as_array(logits), subject.answers())
        # Which neurons would have fired otherwise is not counted: of a map's faults only their number is known.
        return {
            "faults": {name: len(broken) + counts.get(name, 0) for name in ("planned", "applied")},
            "images": images.to_dict(),
        }

    return measure


def _logits(
    subject: Subject, faults: Sequence[Fault], *, chip: int, study: str, check: Callable[[], None]
) -> tuple[Tensor, Mapping[str, int]]:
    """Return the logits under the faults that any quantised net can have, and how many these were."""
    if not faults:
        size, device = subject.batch_size, subject.device
        found = batch_logits(subject.model, subject.images, batch_size=size, device=device, before=lambda _: check())
        return found, {}
    logits, counts = chip_logits(
        subject.model,
        subject.images,
        faults=faults,
        chip=chip,
        study=study,
        batch_size=subject.batch_size,
        device=subject.device,
        before=check,
    )
    return logits, summed(counts)


def _population(net: SpikingNet, faults: Sequence[AnyFault]) -> str:
    """Return what of ``net`` can fail, in words.

    Raises:
        FaultError: a fault meets nothing.
    """
    return ", ".join(
        _of_part(net, one) if isinstance(one, SpikingFault) else population_of(net, [one]) for one in faults
    )


def _of_part(net: SpikingNet, fault: SpikingFault) -> str:
    layers = f"{len(net.stages)} layer{'s' * (len(net.stages) > 1)}"
    count = net.neurons if fault.part == "neurons" else net.synapses
    return f"{fault.name} in {layers} with {count:,} {fault.part}"
