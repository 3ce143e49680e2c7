"""A search for layered spiking nets: a study of short trainings, then the front's best trained in full.

    spiking.yaml -> study/journal.log -> study/candidates.json -> nets/*.json -> results.json, report.html

Each part is skipped where its result is there, and trainings go on from their checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftnas.campaign import Measurement
from ftnas.data import Dataset, split_train
from ftnas.errors import RunError
from ftnas.files import csv_text, read_json, write_json, write_text
from ftnas.holding import holding
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.layered_config import LayeredSearchConfig
from ftnas.pipeline.layered_pictures import layered_raster
from ftnas.pipeline.limits import check_training
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.run_folder import FREE_KEYS
from ftnas.pipeline.spiking_folder import open_folder
from ftnas.report import wording
from ftnas.report.page import render
from ftnas.report.raster import write_png
from ftnas.report.spiking_front import spiking_front_figure
from ftnas.runtime import choose_device, use_threads
from ftnas.search.choice_study import Choices, Found, run_choice_study
from ftnas.search.settings import Direction
from ftnas.spiking.dense.json_file import read_network_json, write_network_json
from ftnas.spiking.dense.scoring import Start, score, trained
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.graph.selection import ranks
from ftnas.training import remove_checkpoint

CONFIG, RESULTS, CANDIDATES, REPORT = "spiking.yaml", "results.json", "candidates.json", "report.html"
COLUMNS = ("net", "no faults (%)", "faulty (%)", "synapses", "spikes an image", "start")
OBJECTIVES: Mapping[str, Direction] = {"faulty": "maximize", "synapses": "minimize", "spikes": "minimize"}
Row = dict[str, Any]


def search_layers(config: LayeredSearchConfig, folder: Path) -> Row:
    """Search in ``folder``, or go on where an earlier start was cut off; return ``results.json``.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    use_threads(config.threads)
    device = choose_device(config.device)
    data = load_dataset(config.recipe, device)
    check_training(config.recipe, data)
    with holding(folder, CONFIG):
        return _search(config, folder, data)


def _search(config: LayeredSearchConfig, folder: Path, data: Dataset) -> Row:
    kind = f"a run folder of {config.family}"
    open_folder(folder, config, CONFIG, recipe=config.recipe, option="--run", kind=kind)
    if not (folder / RESULTS).exists():
        rows = _study(config, data, folder)
        results = {
            "name": config.name,
            "family": config.family,
            "faults": [str(fault) for fault in config.faults],
            "candidates": len(rows),
            "front": [row["name"] for row in _front(rows)],
            "nets": _finalists(config, data, folder, _front(rows)),
        }
        figure = spiking_front_figure(rows, results)
        write_text(folder / "front.svg", figure)
        write_png(figure, folder / "front.png")
        raster = _raster(folder, results, data)
        write_text(folder / "raster.svg", raster)
        write_png(raster, folder / "raster.png")
        write_text(folder / REPORT, _page(results, figure, raster))
        write_json(folder / RESULTS, results)
    return dict(read_json(folder / RESULTS))


def is_layered(folder: Path) -> bool:
    """Return whether a search for layered spiking nets was begun in ``folder``."""
    return (folder / CONFIG).exists()


def write_layered_page(folder: Path) -> Path:
    """Write the page of a finished search again from what the folder holds; return its path.

    Raises:
        RunError: the search is not finished, or a file is damaged.
    """
    if not (folder / RESULTS).exists():
        raise RunError(f"{folder}: the search is not finished; the same ftnas search goes on with it")
    front, raster = ((folder / f"{name}.svg").read_text(encoding="utf-8") for name in ("front", "raster"))
    write_text(folder / REPORT, _page(read_json(folder / RESULTS), front, raster))
    return folder / REPORT


def net_rows(results: Row) -> tuple[tuple[str, ...], ...]:
    """Return the finalists of ``results`` as cells of a table below ``COLUMNS``, the best first."""
    rows = []
    for net in results["nets"]:
        found = net["faulty"]
        numbers = f"{100 * net['clean']:.1f}", wording.plus_minus(found["mean"], found["low"], found["high"])
        rows.append((net["name"], *numbers, f"{net['synapses']:,}", f"{net['spikes']:.0f}", net["start"]))
    return tuple(rows)


def sentence(results: Row) -> str:
    """Return what was found in one sentence."""
    count, front = results["candidates"], len(results["front"])
    return f"{count} nets scored, {front} on the front of faulty accuracy, synapses and spikes"


@torch.no_grad()
def _raster(folder: Path, results: Row, data: Dataset) -> str:
    """Draw what the best net fires for the first test image."""
    name, image = results["nets"][0]["name"], data.test_images[:1].cpu()
    net = read_network_json(folder / "nets" / f"{name}.json")
    said, label = int(net(image).argmax()), int(data.test_labels[0])
    return layered_raster(net, image, f"{name}, test image 0: class {label}, answer {said}")


def _page(results: Row, figure: str, raster: str) -> str:
    return render(
        "layered_page.html.jinja",
        title=results["name"],
        sentence=sentence(results),
        faults=" + ".join(results["faults"]),
        figure=figure,
        raster=raster,
        columns=COLUMNS,
        rows=net_rows(results),
    )


def _study(config: LayeredSearchConfig, data: Dataset, folder: Path) -> list[Row]:
    """Score the candidates, or read them where that is done."""
    file = folder / "study" / CANDIDATES
    if not file.exists():
        fitting, validation = split_train(data, 1 - config.scoring.validation_share, config.seed)
        settings = config.training.model_copy(update={"epochs": config.scoring.epochs})

        def evaluate(choices: Choices) -> Row:
            spec, start = config.net(choices)
            net = trained(
                spec, start, *fitting, classes=data.classes, settings=settings, faults=config.faults, seed=config.seed
            )
            study = f"study {config.seed}"
            chips = range(config.scoring.chips)
            return score(net, *validation, faults=config.faults, chips=chips, study=study).to_dict()

        with progress_bar("candidates", config.search.trials) as advance:
            found = run_choice_study(
                config.decisions,
                evaluate=evaluate,
                key=lambda choices: name_of(*config.net(choices)),
                objectives=OBJECTIVES,
                settings=config.search,
                journal=folder / "study" / "journal.log",
                seed=config.seed,
                identity={"configuration": _digest(config)},
                on_trial=lambda new: advance() if new else None,
            )
        rows = [_row(config, one) for one in found]
        write_text(folder / "study" / "candidates.csv", _csv(rows))
        write_json(file, rows)
    return list(read_json(file))


def _row(config: LayeredSearchConfig, found: Found) -> Row:
    spec, start = config.net(found.choices)
    return {
        "name": name_of(spec, start),
        "trial": found.trial,
        **found.outcome,
        "start": start,
        "specification": spec.model_dump(mode="json"),
    }


def _front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that none beats in all objectives, the best under faults first."""
    signs = [1 if way == "maximize" else -1 for way in OBJECTIVES.values()]
    values = np.array([[sign * row[key] for key, sign in zip(OBJECTIVES, signs, strict=True)] for row in rows])
    kept = [row for row, rank in zip(rows, ranks(values), strict=True) if rank == 0]
    return sorted(kept, key=lambda row: (-row["faulty"], row["synapses"], row["spikes"]))


def _finalists(config: LayeredSearchConfig, data: Dataset, folder: Path, front: Sequence[Row]) -> list[Row]:
    """Train the best of ``front`` on all training images and measure them on the test images."""
    chosen = front[: config.finalists.top]
    with progress_bar("finalists", len(chosen) * config.training.epochs) as advance:
        rows = [_finalist(config, data, folder / "nets", row, advance) for row in chosen]
    return sorted(rows, key=lambda row: -row["faulty"]["mean"])


def _finalist(config: LayeredSearchConfig, data: Dataset, folder: Path, row: Row, advance: Any) -> Row:
    measured, network = folder / f"{row['name']}.result.json", folder / f"{row['name']}.json"
    if measured.exists():
        for _ in range(config.training.epochs):
            advance()
        return dict(read_json(measured))
    start: Start = row["start"]
    checkpoint = folder / f"{row['name']}.checkpoint.safetensors"
    net = trained(
        SpikingSpec.model_validate(row["specification"]),
        start,
        data.train_images,
        data.train_labels,
        classes=data.classes,
        settings=config.training,
        faults=config.faults,
        seed=config.seed,
        checkpoint=checkpoint,
        on_epoch=lambda record: advance(),
    )
    write_network_json(net, network, facts={"data": data.name, "source": row["name"]})
    # What is measured is what was written.
    found = score(
        read_network_json(network).to(data.test_images.device),
        data.test_images,
        data.test_labels,
        faults=config.faults,
        chips=range(config.finalists.chips),
        study=f"campaign {config.seed}",
    )
    result = {
        "name": row["name"],
        "start": start,
        "clean": found.clean,
        "faulty": Measurement.over(found.chips).to_dict(),
        "synapses": found.synapses,
        "neurons": net.neurons,
        "spikes": found.spikes,
        "specification": row["specification"],
    }
    write_json(measured, result)
    remove_checkpoint(checkpoint)
    return result


def name_of(spec: SpikingSpec, start: Start) -> str:
    """Return a short name that tells a net from others."""
    sizes = "-".join([*(f"c{size}" for size in spec.channels), *map(str, spec.widths)]) or "direct"
    digest = hashlib.blake2b(f"{spec.model_dump_json()} {start}".encode(), digest_size=3).hexdigest()
    return f"{sizes}-t{spec.steps}-{digest}"


def _digest(config: LayeredSearchConfig) -> str:
    free = {*FREE_KEYS, "finalists", "search", "name"}
    text = json.dumps(config.model_dump(mode="json", exclude=free), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _csv(rows: Sequence[Row]) -> str:
    measured = ["name", "trial", "start", "clean", *OBJECTIVES]
    keys = list(rows[0]["specification"])
    lines = [[*(row[key] for key in measured), *(_cell(row["specification"][key]) for key in keys)] for row in rows]
    return csv_text([*measured, *keys], lines)


def _cell(value: Any) -> Any:
    return "-".join(map(str, value)) if isinstance(value, list) else value
