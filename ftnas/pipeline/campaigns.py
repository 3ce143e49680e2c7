"""Campaigns on a trained net of a run folder: measured, written down and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftnas import campaign
from ftnas.campaign import ChipResult, SingleResult
from ftnas.campaign.levels import Level, levels_of
from ftnas.campaign.population import By
from ftnas.campaign.samples import Allocation
from ftnas.errors import CampaignError, FaultError
from ftnas.faults import draw_plan, export_csv, output_shapes, sites
from ftnas.faults.sites import Sites
from ftnas.files import write_tensors, write_text
from ftnas.pipeline.campaign_files import (
    ACCURACY,
    RESULTS,
    TABLE,
    ChipOptions,
    Execution,
    check_folder,
    data_facts,
    draw,
    write_chips,
    write_results,
)
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.spiking_campaigns import measure_layers
from ftnas.report.campaign_figures import heat_map
from ftnas.spiking.dense.hardware_faults import is_spiking
from ftnas.spiking.dense.network import SpikingNet

__all__ = [
    "ACCURACY",
    "HEAT_MAP",
    "RESULTS",
    "TABLE",
    "ChipOptions",
    "Execution",
    "SingleOptions",
    "list_sites",
    "measure_chips",
    "measure_single",
]

LAYERS, LAYER_BITS = "layers.csv", "layer_bits.csv"
HEAT_MAP = "heat_map"


@dataclass(frozen=True)
class SingleOptions:
    """A campaign of single faults; see ``campaign.run_single``."""

    sites: str = "*"
    kinds: tuple[str, ...] = ("flip",)
    by: By = "network"
    margin: float | None = None
    n: int | None = None
    allocation: Allocation | None = None
    pilot: int | None = None
    exhaustive: bool = False
    critical: float = 0.01
    confidence: float = campaign.CONFIDENCE
    study: str = "campaign"


def measure_chips(net: Checkpoint, options: ChipOptions, execution: Execution) -> ChipResult:
    """Measure ``net`` on faulty chips and write records, tables and a figure into the folder ``execution.out``.

    Raises:
        FtnasError: what the user gave is impossible, or the folder holds something else.
    """
    if isinstance(net.model, SpikingNet):
        return measure_layers(net, net.model, options, execution)
    for text in options.faults:
        if is_spiking(text):
            name = text.partition(":")[0]
            raise FaultError(f"{name}: is a fault of spiking hardware, and {net.name} has no spiking neurons")
    if options.map is not None:
        raise CampaignError(f"map: is for layered spiking nets, and {net.name} is none")
    check_folder(execution.out)
    levels = levels_of(options.faults, None)
    result = campaign.run(
        net.model,
        (net.data.test_images, net.data.test_labels),
        options.faults,
        margin=options.margin,
        chips=options.chips,
        max_chips=options.max_chips,
        confidence=options.confidence,
        out=execution.out,
        study=options.study,
        batch_size=campaign.BATCH_SIZE if execution.batch_size is None else execution.batch_size,
        workers=execution.workers,
        shard=execution.shard,
        progress=progress_bar,
    )
    if options.export_chip is not None:
        _export(net, levels, options.export_chip, options.study, execution.out)
    write_chips(execution.out, result, options, net=net.name, data=data_facts(net))
    return result


def measure_single(net: Checkpoint, options: SingleOptions, execution: Execution) -> SingleResult:
    """Inject single faults into ``net`` and write records, tables and a heat map into the folder ``execution.out``.

    Raises:
        FtnasError: what the user gave is impossible, or the folder holds something else.
    """
    check_folder(execution.out)
    result = campaign.run_single(
        net.model,
        (net.data.test_images, net.data.test_labels),
        sites=options.sites,
        kinds=options.kinds,
        by=options.by,
        margin=options.margin,
        n=options.n,
        allocation=options.allocation,
        pilot=options.pilot,
        exhaustive=options.exhaustive,
        critical=options.critical,
        confidence=options.confidence,
        out=execution.out,
        study=options.study,
        batch_size=campaign.SINGLE_BATCH_SIZE if execution.batch_size is None else execution.batch_size,
        workers=execution.workers,
        shard=execution.shard,
        progress=progress_bar,
    )
    if not result.missing:
        layers, cells = campaign.layer_rows(result), campaign.layer_bit_rows(result)
        write_results(execution.out, net.name, data_facts(net), campaign.document(result), campaign.rows(result))
        write_text(execution.out / LAYERS, campaign.to_csv(layers))
        write_text(execution.out / LAYER_BITS, campaign.to_csv(cells))
        drawn = heat_map(cells, layers, title=f"{net.name}: single faults ({', '.join(options.kinds)})")
        draw(execution.out, HEAT_MAP, drawn)
    return result


def list_sites(net: Checkpoint, pattern: str = "*") -> Sites:
    """Return the fault sites of ``net`` whose name matches ``pattern``, outputs with the shape of one image.

    Raises:
        FaultError: none does.
    """
    shapes = output_shapes(net.model, net.data.test_images[:1])
    return sites(net.model, pattern, shapes=shapes)


def _export(net: Checkpoint, levels: Sequence[Level], chip: int, study: str, out: Path) -> None:
    """Write all that fails on ``chip`` at each rate, and the weights that it computes with."""
    images = net.data.test_images
    shapes = output_shapes(net.model, images[:1])
    for level in levels:
        name = f"chip_{chip}_at_{level.rate:g}"
        plan = draw_plan(net.model, level.faults, images=range(len(images)), shapes=shapes, chip=chip, study=study)
        export_csv(plan, out / f"plan_of_{name}.csv")
        weights = campaign.faulty_state_dict(net.model, level.faults, chip, study=study)
        write_tensors(out / f"weights_of_{name}.safetensors", weights, {"faults": list(map(str, level.faults))})
