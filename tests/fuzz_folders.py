"""Readers of what runs, exports and campaigns leave behind."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import exported_nets
import fuzz_binary_edits
import fuzz_edits
import torch
from fake_run import fake_run
from fuzz_reader import Reader, plain

from ftnas.campaign.records import SCHEMA, open_records, read_records
from ftnas.export.weights import load_weights, save_weights
from ftnas.files import write_json


def genotype(path: Path) -> object:
    from ftnas.pipeline.description import describe

    return describe(str(path), space="tiny").to_dict()


def make_genotype(folder: Path) -> None:
    from ftnas.space import load_space

    space = load_space("tiny")
    write_json(folder / "file.json", space.sample(torch.Generator().manual_seed(0)).to_dict())


def make_candidates(path: Path) -> None:
    run = small_run(path.parent / "run")
    path.write_bytes((run / "study" / "candidates.json").read_bytes())


def small_run(folder: Path) -> Path:
    """Write a run folder with less of everything, so that many can be read in a short time."""
    fake_run(folder)
    for name, count in {"study/candidates.json": 3, "study/leaders.json": 2, "supernet/history.json": 2}.items():
        write_json(folder / name, json.loads((folder / name).read_text(encoding="utf-8"))[:count])
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    for training in sorted((folder / "trainings").iterdir())[2:]:
        shutil.rmtree(training)
    write_json(folder / "comparison.json", {**comparison, "rows": comparison["rows"][:3]})
    return folder


def candidates(path: Path) -> object:
    from ftnas.search.candidates import read_candidates

    return read_candidates(path)


def record(folder: Path) -> object:
    from ftnas.report.record import read_run

    return read_run(folder)


RUN_FILES = (
    "environment.json", "study/candidates.json", "study/leaders.json", "study/front.json", "supernet/history.json",
    "winner/genotype.json", "winner/result.json", "winner/vulnerability.json", "comparison.json", "ranking.json",
    "warnings.json",
)  # fmt: skip


def of_run(read: Callable[[Path], object]) -> Reader:
    yamls = dict.fromkeys(("config.yaml", "space.yaml"), fuzz_edits.yaml_edited)
    return Reader(small_run, read, {**dict.fromkeys(RUN_FILES, fuzz_edits.json_edited), **yamls})


def report(folder: Path) -> object:
    from ftnas.report import figures, page

    kept, figures.write_png = figures.write_png, lambda drawing, path: path.write_bytes(b"PNG")  # the slowest part
    try:
        return page.write_report(folder)
    finally:
        figures.write_png = kept


def described_run(folder: Path) -> object:
    from ftnas.pipeline.description import describe

    return json.dumps(describe(str(folder)).to_dict())


def exported(kind: str) -> Reader:
    def make(folder: Path) -> None:
        net = exported_nets.found() if kind == "cells" else exported_nets.baseline()
        model = net.model
        if kind == "hardened":
            from ftnas.networks.hardened import protect_
            from ftnas.networks.protection import Protection

            model = protect_(copy.deepcopy(model), {"layers.0.conv": Protection("tmr", "majority", (0, 1))})
        save_weights(folder / "net.safetensors", model, net.spec, facts={"data": "digits"})

    return Reader(
        make,
        lambda folder: load_weights(folder / "net.safetensors"),
        {"net.safetensors": fuzz_binary_edits.safetensors_edited, "net.json": fuzz_edits.json_edited},
    )


def training() -> Reader:
    def make(folder: Path) -> None:
        exported_nets.training_folder(folder, exported_nets.baseline())

    def read(folder: Path) -> object:
        from ftnas.pipeline.exports import load

        return load(folder / "run" / "trainings" / "baseline")

    home = "run/trainings/baseline"
    return Reader(
        make,
        read,
        {
            f"{home}/model.json": fuzz_edits.json_edited,
            f"{home}/weights.safetensors": fuzz_binary_edits.safetensors_edited,
            "run/config.yaml": fuzz_edits.yaml_edited,
            "run/space.yaml": fuzz_edits.yaml_edited,
        },
    )


def proofs() -> Reader:
    facts = {"schema": 1, "net": "net", "hash": "00", "facts": {"source": "a", "chip": "fault-free"}}
    proof = {"format": "onnx", "runtime": "r", "files": ["net.onnx"], "images": 3, "same": 3, "largest": 0.0,
             "beyond": 0, "remarks": []}  # fmt: skip

    def read(path: Path) -> object:
        from ftnas.pipeline.exports import _earlier

        return _earlier(path.parent, facts, ["c"])

    from ftnas.export.exporting import PROOF

    return Reader(
        lambda folder: write_json(folder / PROOF, {**facts, "proofs": [proof]}),
        lambda folder: read(folder / PROOF),
        {PROOF: fuzz_edits.json_edited},
    )


def records() -> Reader:
    header = {"schema": SCHEMA, "campaign": "test", "settings": {"rates": [0.001]}}

    def make(path: Path) -> None:
        with open_records(path, header) as records:
            records.append([{"unit": f"chip {n}", "rates": [{"faults": n}]} for n in range(3)])

    def read(path: Path) -> None:
        read_records(path)
        with open_records(path, header) as records:
            records.known.get("chip 1")

    return plain(make, read, fuzz_edits.records_edited)


def checkpoint() -> Reader:
    from ftnas.pipeline.failures import recorded
    from ftnas.training.checkpoints import load_checkpoint, save_checkpoint

    def parts() -> tuple[torch.nn.Module, dict[str, torch.optim.Optimizer]]:
        model = torch.nn.Linear(3, 2)
        return model, {"weights": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)}

    def make(path: Path) -> None:
        model, optimizers = parts()
        model(torch.ones(1, 3)).sum().backward()
        optimizers["weights"].step()
        save_checkpoint(path, model, optimizers, {"epoch": 1, "records": [{"epoch": 0, "loss": 0.5}]})

    def read(path: Path) -> None:
        load_checkpoint(path, *parts())
        recorded(path)

    return plain(make, read, fuzz_binary_edits.safetensors_edited)


def study() -> Reader:
    from test_controller import TINY, cost, score, settings_for

    from ftnas.search.controller import run_study

    settings = settings_for("random", trials=4)

    def run(path: Path) -> object:
        return run_study(
            TINY, evaluate=score, cost=cost, settings=settings, first=[], journal=path, seed=0, on_trial=lambda *_: None
        )

    return Reader(
        lambda f: run(f / "journal.log"), lambda f: run(f / "journal.log"), {"journal.log": fuzz_edits.journal_edited}
    )


def order() -> Reader:
    from test_controller import TINY

    from ftnas.search.order import read_order, write_order

    choices = {decision.name: 0 for decision in TINY.decisions()}
    return plain(
        lambda path: write_order(path, [("sampler", choices)]),
        lambda path: read_order(path, TINY),
        fuzz_edits.json_edited,
    )


def lines() -> Reader:
    from ftnas.search.journal import JsonLines

    def make(path: Path) -> None:
        lines = JsonLines(path)
        for number in range(3):
            lines.append({"trial": number, "choices": {"a": 1}})

    return plain(make, JsonLines, fuzz_edits.lines_edited)
