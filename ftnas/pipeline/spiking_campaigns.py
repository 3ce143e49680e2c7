"""Campaigns on spiking nets of both families, written down as those of other nets are."""

from __future__ import annotations

from pathlib import Path

from ftnas.campaign import BATCH_SIZE, ChipResult
from ftnas.campaign.attack import Conduct, Goal
from ftnas.errors import CampaignError
from ftnas.faults import draw_plan, export_csv, output_shapes
from ftnas.pipeline.campaign_files import ChipOptions, Execution, check_folder, data_facts, write_chips
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.progress import progress_bar
from ftnas.spiking.dense.attack import attack_chips, spiking_levels
from ftnas.spiking.dense.fault_map import FaultMap, draw_map, joined_maps
from ftnas.spiking.dense.hardware_faults import divided
from ftnas.spiking.dense.map_file import load_map, save_map
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.graph.attack import attack_graph
from ftnas.spiking.graph.network_file import read_network
from ftnas.spiking.graph.tasks import demand_fit, load_task


def measure_layers(net: Checkpoint, model: SpikingNet, options: ChipOptions, execution: Execution) -> ChipResult:
    """Measure a layered net on faulty chips and write records, tables and a figure into ``execution.out``.

    Raises:
        FtnasError: what the user gave is impossible, or the folder holds something else.
    """
    check_folder(execution.out)
    given = FaultMap() if options.map is None else load_map(options.map, model)
    result = attack_chips(
        model,
        (net.data.test_images, net.data.test_labels),
        options.faults,
        goal=_goal(options, execution),
        how=_conduct(execution),
        study=options.study,
        batch_size=BATCH_SIZE if execution.batch_size is None else execution.batch_size,
        given=given,
    )
    if options.export_chip is not None:
        _export(net, model, options, given, execution.out)
    write_chips(execution.out, result, options, net=net.name, data=data_facts(net))
    return result


def measure_graph_chips(
    file: Path, options: ChipOptions, execution: Execution, *, task: str | None = None
) -> ChipResult:
    """Measure the graph in ``file`` on faulty chips and write records, tables and a figure into ``execution.out``.

    Args:
        file: with the net.
        options: what fails; a graph takes neither ``export_chip`` nor ``map``.
        execution: where the results go; a graph takes all test samples at once, so there is no ``batch_size``.
        task: by default that of the file.

    Raises:
        FtnasError: what the user gave is impossible, or the folder holds something else.
    """
    for name, value in (
        ("export_chip", options.export_chip),
        ("map", options.map),
        ("batch_size", execution.batch_size),
    ):
        if value is not None:
            raise CampaignError(f"--{name.replace('_', '-')}: {file} is a spiking graph, which takes none")
    check_folder(execution.out)
    network = read_network(file)
    found = load_task(task or network.task, network.encoding)
    demand_fit(network.genome.inputs, network.genome.outputs, found, str(file))
    how = _conduct(execution)
    result = attack_graph(network, found, options.faults, goal=_goal(options, execution), how=how, study=options.study)
    name = file.stem if file.stem != "network" else network.genome.key
    write_chips(execution.out, result, options, net=name, data={"name": found.name})
    return result


def _goal(options: ChipOptions, execution: Execution) -> Goal:
    sharded = execution.shard is not None
    return Goal(options.margin, options.chips, options.max_chips, options.confidence, sharded=sharded)


def _conduct(execution: Execution) -> Conduct:
    return Conduct(execution.out, execution.workers, execution.shard, progress_bar)


def _export(net: Checkpoint, model: SpikingNet, options: ChipOptions, given: FaultMap, out: Path) -> None:
    """Write all that fails on one chip at each rate: a fault map, and the plan of the faults that no map holds."""
    chip, images = options.export_chip or 0, net.data.test_images
    for level in spiking_levels(options.faults):
        name = f"chip_{chip}_at_{level.rate:g}"
        spiking, others = divided(level.faults)
        broken = joined_maps(given, draw_map(model, spiking, chip=chip, study=options.study))
        if broken:
            save_map(broken, out / f"map_of_{name}.json")
        if others:
            shapes = output_shapes(model, images[:1])
            plan = draw_plan(model, others, images=range(len(images)), shapes=shapes, chip=chip, study=options.study)
            export_csv(plan, out / f"plan_of_{name}.csv")
