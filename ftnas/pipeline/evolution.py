"""An evolution of spiking graphs in a run folder: evolve, measure, write; the same call goes on after a kill.

evolution.yaml -> checkpoint.json, generation by generation -> results.json -> nets/, winner/, figures/, report.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.estimates import estimate
from ftnas.errors import RunError
from ftnas.files import (
    csv_text,
    has_latest,
    previous_of,
    read_json,
    read_latest,
    remove,
    replacing,
    write_json,
    write_text,
)
from ftnas.holding import holding
from ftnas.pipeline.config import Recipe
from ftnas.pipeline.evolution_config import GraphSearchConfig
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.spiking_folder import open_folder
from ftnas.pipeline.spiking_graphs import write_graph
from ftnas.report import wording
from ftnas.report.evolution import evolution_figures, evolution_page
from ftnas.report.figures import write_figures
from ftnas.search.candidates import Score
from ftnas.spiking.graph.evolution import Evolution, Generation, first_generation, next_generation, read_generation
from ftnas.spiking.graph.genome import Genome
from ftnas.spiking.graph.network_file import Network, write_network
from ftnas.spiking.graph.perturbation import Perturbation, parse_perturbation, parse_perturbations
from ftnas.spiking.graph.scoring import scores_of
from ftnas.spiking.graph.selection import Individual, front_of
from ftnas.spiking.graph.tasks import Split, Task, load_task
from ftnas.stopping import check, finishing_steps

CONFIG, CHECKPOINT, RESULTS, REPORT = "evolution.yaml", "checkpoint.json", "results.json", "report.html"
WINNER = "winner"
Row = dict[str, Any]


def search_graphs(config: GraphSearchConfig, folder: Path) -> Row:
    """Evolve spiking graphs in ``folder``, measure the best, and return ``results.json``.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    with holding(folder, CONFIG):
        return _search(config, folder)


def _search(config: GraphSearchConfig, folder: Path) -> Row:
    recipe = Recipe(seed=config.seed)
    open_folder(folder, config, CONFIG, recipe=recipe, option="--run", kind=f"a run folder of {config.family}")
    if not (folder / RESULTS).exists():
        task = load_task(config.task, config.encoding)
        evolution = evolution_of(config, task)
        last = _evolve(folder / CHECKPOINT, evolution)
        results = _results(config, task, evolution, last)
        _write(folder, config, task, results)
        write_json(folder / RESULTS, results)
    remove(folder / CHECKPOINT)
    remove(previous_of(folder / CHECKPOINT))
    return dict(read_json(folder / RESULTS))


def evolution_of(config: GraphSearchConfig, task: Task) -> Evolution:
    """Return the evolution that ``config`` describes."""
    faults = tuple(parse_perturbation(text) for text in config.faults)

    def evaluate(genomes: Sequence[Genome], generation: int) -> list[Score]:
        first = generation * config.chips if config.renew_chips else 0
        return scores_of(
            genomes,
            processor=config.processor,
            task=task,
            faults=faults,
            chips=range(first, first + config.chips),
            study=f"evolution {config.seed}",
        )

    return Evolution(
        task.inputs,
        task.outputs,
        config.processor,
        config.evolution,
        config.fitness,
        evaluate,
        config.renew_chips,
        config.seed,
    )


def _evolve(checkpoint: Path, evolution: Evolution) -> Generation:
    """Return the last generation, from where ``checkpoint`` stands."""
    total = evolution.settings.generations
    with progress_bar("generations", total + 1) as advance:
        if has_latest(checkpoint):
            now = read_latest(checkpoint, lambda path: read_generation(path, evolution.processor))
            for _ in range(now.number + 1):
                advance()
        else:
            now = first_generation(evolution)
            _save(checkpoint, now)
            advance()
        with finishing_steps():
            while now.number < total:
                now = next_generation(evolution, now)
                _save(checkpoint, now)
                advance()
                check(f"generation {now.number}")
    return now


def _save(checkpoint: Path, generation: Generation) -> None:
    with replacing(checkpoint, previous=previous_of(checkpoint)) as part:
        part.write_text(json.dumps(generation.to_dict(), separators=(",", ":")), encoding="utf-8")


def _results(config: GraphSearchConfig, task: Task, evolution: Evolution, last: Generation) -> Row:
    """Measure the best nets of the last generation and name the winner, by its fitness on fresh chips."""
    faults = tuple(parse_perturbation(text) for text in config.faults)
    chosen = last.archive if config.evolution.method == "nsga2" else last.population[: config.measurement.leaders]
    genomes = list({one.genome.key: one.genome for one in chosen}.values())
    fresh = _scores(config, task, genomes, faults, config.measurement.fresh_chips, split="train")
    found = [Individual(genome, score) for genome, score in zip(genomes, fresh, strict=True)]
    if config.evolution.method == "nsga2":
        found = front_of(found)
    winner = max(found, key=evolution.fitness_of)
    nets = _measured(config, task, found)
    return {
        "name": config.name,
        "family": config.family,
        "task": config.task,
        "seed": config.seed,
        "method": config.evolution.method,
        "faults": list(config.faults),
        "winner": winner.genome.key,
        "sentence": _sentence(config, nets, winner),
        "nets": [{**net, "fitness": evolution.fitness_of(one)} for net, one in zip(nets, found, strict=True)],
        "history": [dict(line) for line in last.history],
    }


def _sentence(config: GraphSearchConfig, nets: Sequence[Row], winner: Individual) -> str:
    [net] = [net for net in nets if net["key"] == winner.genome.key]
    fault = net["faults"][0]
    return (
        f"{config.task}: the winner has {net['synapses']} synapses and {net['hidden']} hidden neurons; on test samples "
        f"it reaches {100 * net['test']:.1f} % without faults and {100 * fault['mean']:.1f} % "
        f"({100 * fault['low']:.1f} to {100 * fault['high']:.1f}) under {fault['fault']}."
    )


def _measured(config: GraphSearchConfig, task: Task, found: Sequence[Individual]) -> list[Row]:
    """Return a row for each net: cost, scores on training samples, accuracies on test samples with intervals."""
    genomes, chips = [one.genome for one in found], config.measurement.chips
    levels = [level for text in config.measurement.faults for level in parse_perturbations(text)]
    by_level = []
    with progress_bar("measurement", len(levels)) as advance:
        for level in levels:
            by_level.append(_scores(config, task, genomes, (level,), chips, split="test"))
            advance()
    return [
        {
            "key": one.genome.key,
            "synapses": len(one.genome.synapses),
            "hidden": len(one.genome.hidden),
            "size": one.genome.size,
            "train": one.score.clean,
            "train_faulty": one.score.faulty,
            "test": by_level[0][place].clean,
            "faults": [_fault(level, scores[place]) for level, scores in zip(levels, by_level, strict=True)],
            "genome": one.genome.to_dict(),
        }
        for place, one in enumerate(found)
    ]


def _fault(level: Perturbation, score: Score) -> Row:
    found = estimate(score.chips, CONFIDENCE)
    ends = {"low": found.interval.low, "high": found.interval.high}
    return {"fault": str(level), "mean": found.mean, **ends, "chips": list(score.chips)}


def _scores(
    config: GraphSearchConfig,
    task: Task,
    genomes: Sequence[Genome],
    faults: Sequence[Perturbation],
    chips: int,
    *,
    split: Split,
) -> list[Score]:
    """Score nets on chips of their own: of the training split other ones than in the evolution, of the test split the
    same in every run.
    """
    study = "test" if split == "test" else f"fresh {config.seed}"
    return scores_of(
        genomes, processor=config.processor, task=task, faults=faults, chips=range(chips), study=study, split=split
    )


def net_columns(results: Row) -> tuple[str, ...]:
    """Return the headings of the table of nets."""
    faults = [fault["fault"] for fault in results["nets"][0]["faults"]]
    return ("net", "synapses", "hidden", "train %", "test %", *faults)


def net_rows(results: Row) -> tuple[tuple[str, ...], ...]:
    """Return the nets of ``results`` as cells of a table, the winner marked."""
    return tuple(_cells(net, net["key"] == results["winner"]) for net in results["nets"])


def _cells(net: Row, is_winner: bool) -> tuple[str, ...]:
    scores = [wording.plus_minus(fault["mean"], fault["low"], fault["high"]) for fault in net["faults"]]
    name = f"{net['key']} (winner)" if is_winner else net["key"]
    return (
        name,
        str(net["synapses"]),
        str(net["hidden"]),
        f"{100 * net['train']:.1f}",
        f"{100 * net['test']:.1f}",
        *scores,
    )


def _write(folder: Path, config: GraphSearchConfig, task: Task, results: Row) -> None:
    """Write nets, tables, figures and the page."""
    networks = {
        net["key"]: Network(Genome.from_dict(net["genome"]), config.processor, config.encoding, config.task)
        for net in results["nets"]
    }
    for key, network in networks.items():
        write_network(folder / "nets" / f"{key}.json", network)
    winner = networks[results["winner"]]
    write_graph(folder / WINNER, winner, task, sample=0)
    write_text(folder / "front.csv", _table(results))
    _write_page(folder, results)


def is_evolution(folder: Path) -> bool:
    """Return whether an evolution was begun in ``folder``."""
    return (folder / CONFIG).exists()


def write_evolution_page(folder: Path) -> Path:
    """Write the page of a finished evolution again, and its figures, from what the folder holds; return its path.

    Raises:
        RunError: the evolution is not finished, or a file is damaged.
    """
    if not (folder / RESULTS).exists():
        raise RunError(f"{folder}: the evolution is not finished; the same ftnas search goes on with it")
    _write_page(folder, read_json(folder / RESULTS))
    return folder / REPORT


def _write_page(folder: Path, results: Row) -> None:
    drawn = [(folder / WINNER / f"{name}.svg").read_text(encoding="utf-8") for name in ("network", "raster")]
    figures = evolution_figures(results, *drawn)
    write_figures(figures, folder / "figures")
    write_text(folder / REPORT, evolution_page(results, figures, net_columns(results), net_rows(results)))


def _table(results: Row) -> str:
    """Return a line of CSV for each net and fault."""
    cost, ends = ("key", "synapses", "hidden", "train", "train_faulty", "test"), ("fault", "mean", "low", "high")
    lines = [
        [*(net[name] for name in cost), *(fault[name] for name in ends)]
        for net in results["nets"]
        for fault in net["faults"]
    ]
    return csv_text([*cost, "fault", "accuracy", "low", "high"], lines)
