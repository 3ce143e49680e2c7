"""A run folder with plausible results, made in a moment: what a finished digits run looks like from outside."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

from ftnas.campaign import Measurement
from ftnas.quantization import Quantization, Range
from ftnas.space import Edge, Genotype

RATE = 3e-3
RATES = (3e-3, 3e-4, 1e-3, 1e-2, 3e-2)  # the training's own first, as the pipeline writes them
FAULT = "features.mac_bit_bias"
CHOICES = (Quantization(), Quantization(feature_range=Range("fixed", 2.0)), Quantization(weight_bits=4))
LAYERS = ("stem", "cells.0.inputs.0.conv", "cells.0.edges.2_0.sep_conv_3x3.pointwise", "cells.1.inputs.1.conv")
OPERATORS = ("skip_connect", "avg_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "relu_conv_bn_3x3")


def fake_run(folder: Path, *, until: str = "end") -> Path:
    """Write a run folder. ``until`` is ``start``, ``supernet``, ``study``, ``winner`` or ``end``."""
    luck = random.Random(7)
    stages = ("start", "supernet", "study", "winner", "end")
    done = stages[: stages.index(until) + 1]
    for stage in done:
        _STAGES[stage](folder, luck)
    return folder


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def genotype(luck: random.Random) -> Genotype:
    """Return a random genotype of two nodes a cell."""

    def cell() -> tuple[tuple[Edge, ...], ...]:
        return tuple(
            tuple(Edge(luck.choice(OPERATORS), luck.randrange(node), luck.choice(CHOICES)) for _ in range(2))
            for node in range(2, 5)
        )

    return Genotype(cell(), cell())


def result(luck: random.Random, name: str, label: str, family: str, *, strength: float, flops: int, **more: Any) -> Any:
    """Return a ``result.json``; ``strength`` is the rate at which half of the accuracy is lost."""
    clean = 0.985 - 0.02 * luck.random()
    rates = []
    for rate in RATES:
        mean = 0.1 + (clean - 0.1) / (1 + (rate / strength) ** 1.2)
        chips = [min(1.0, max(0.0, luck.gauss(mean, 0.012))) for _ in range(20)]
        rates.append({"rate": rate, **Measurement.over(chips).to_dict()})
    costs = {"macs": flops // 2, "flops": flops, "parameters": flops // 45, "weight_bits": flops // 45 * 8}
    kinds = {"training": "fault-tolerant", "size": "own", "seed": 0, "epochs": 40}
    base = {"name": name, "label": label, "family": family, **costs, **kinds, "clean": clean, "fault": FAULT}
    return {**base, "rates": rates, **more}


def vulnerability(luck: random.Random, layers: tuple[str, ...]) -> dict[str, Any]:
    """Return a ``vulnerability.json`` in which the first layer is hurt most and nothing reads the last."""

    def exposure(changed: float) -> dict[str, Any]:
        wrong = [changed * luck.uniform(0.9, 1.1) for _ in range(4)]
        right = Measurement.over([0.97 - share / 2 for share in wrong])
        return {"accuracy": right.to_dict(), "changed": Measurement.over(wrong).to_dict()}

    shares = [0.08 / (1 + number) for number in range(len(layers) - 1)] + [0.0]
    rows = [
        {"name": name, "kind": "conv", "macs": 13824, "weights": 216, "outputs": 512, **exposure(share)}
        for name, share in zip(layers, shares, strict=True)
    ]
    return {"fault": FAULT, "rate": RATES[-1], "images": 512, "clean": 0.97, "all": exposure(0.2), "layers": rows}


def _start(folder: Path, luck: random.Random) -> None:
    write(
        folder / "config.yaml",
        "name: digits_feature_faults\nseed: 0\nspace: digits\ndata:\n  name: digits\n  directory: null\n"
        f"faults:\n- {FAULT}:{RATE}\nsearch:\n  trials: 90\n",
    )
    environment = {"ftnas": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "optuna": "5.0.0", "numpy": "2.4.6"}
    machine = {"platform": "Linux x86_64", "cores": 2, "threads": 1, "seed": 0, "nni": None}
    when = {"started": "2026-11-21T10:00:00+00:00", "command": "ftnas search experiments/digits_feature_faults.yaml"}
    write(folder / "environment.json", {**environment, **machine, **when})
    write(folder / "space.yaml", "name: digits\ndescription: 8x8 images, three cells, eight primitives\n")


def _supernet(folder: Path, luck: random.Random) -> None:
    rows = []
    for epoch in range(40):
        clean = 0.25 + 2.0 * math.exp(-epoch / 7) + 0.03 * luck.random()
        faulty = 0.75 + 1.7 * math.exp(-epoch / 9) + 0.05 * luck.random()
        losses = {"loss": (clean + faulty) / 2, "clean_loss": clean, "faulty_loss": faulty}
        moved = {"architecture_loss": (clean + faulty) / 2 + 0.08, "entropy": 1.79 - 0.02 * max(0, epoch - 10)}
        rows.append({"epoch": epoch, **losses, **moved, "seconds": 0.9})
    write(folder / "supernet/history.json", rows)


def _study(folder: Path, luck: random.Random) -> None:
    rows = [_candidate(luck, trial) for trial in range(90)]
    write(folder / "study/candidates.json", rows)
    best: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: row["flops"]):
        if not best or row["faulty"] > best[-1]["faulty"]:
            best.append(row)
    write(folder / "study/front.json", [row["key"] for row in best])
    leaders = [
        {**row, "fresh_faulty": row["faulty"] - 0.03 * luck.random(), "fresh_chips": row["chips"]} for row in best[-5:]
    ]
    write(folder / "study/leaders.json", leaders)


def _candidate(luck: random.Random, trial: int) -> dict[str, Any]:
    drawn = genotype(luck)
    flops = int(math.exp(luck.uniform(math.log(2.2e5), math.log(1.1e6))))
    faulty = 0.34 + 0.13 * math.log(flops / 2.2e5) + luck.gauss(0.04 * trial / 90, 0.045)
    chips = [faulty + luck.gauss(0, 0.01) for _ in range(8)]
    costs = {"macs": flops // 2, "flops": flops, "parameters": flops // 45, "weight_bits": flops // 45 * 8}
    source = {0: "magnitude", 1: "perturbation"}.get(trial, "sampler")
    scores = {"clean": faulty + 0.3, "faulty": statistics.fmean(chips), "chips": chips}
    return {"trial": trial, "key": drawn.key, "genotype": drawn.to_dict(), **scores, **costs, "source": source}


def _winner(folder: Path, luck: random.Random) -> None:
    leader = read(folder / "study/leaders.json")[-1]
    found = result(
        luck, f"winner-{leader['key']}", "ftnas (found)", "winner", strength=1.1e-2, flops=700_000, key=leader["key"]
    )
    write(folder / "winner/result.json", found)
    write(folder / "winner/genotype.json", leader["genotype"])
    _training(folder, luck, found)
    for i, row in enumerate(read(folder / "study/leaders.json")[:4]):
        name = f"top{i}-{row['key']}"
        short = result(luck, name, f"leader {i}", "finalist", strength=8e-3, flops=row["flops"], key=row["key"])
        _training(folder, luck, short, epochs=15)


def _training(folder: Path, luck: random.Random, content: dict[str, Any], epochs: int = 40) -> None:
    rows = []
    for epoch in range(epochs):
        left = math.exp(-epoch / (4 + 2 * luck.random()))
        rows.append({"epoch": epoch, "loss": 0.3 + 2 * left, "clean_accuracy": 0.98 - 0.8 * left, "seconds": 0.4})
    write(folder / "trainings" / content["name"] / "history.json", rows)
    write(folder / "trainings" / content["name"] / "result.json", content)


def _end(folder: Path, luck: random.Random) -> None:
    rows = [read(folder / "winner/result.json"), *_others(luck)]
    for row in rows[1:]:
        _training(folder, luck, row)
    write(folder / "comparison.json", {"fault": FAULT, "rate": RATE, "chips": 20, "confidence": 0.95, "rows": rows})
    write(folder / "ranking.json", _ranking(folder, luck))
    write(folder / "winner/vulnerability.json", vulnerability(luck, LAYERS))
    write(folder / "warnings.json", ["only 6 of 10 random cells with the winner's FLOPs were found in 20000 draws"])


def _others(luck: random.Random) -> list[dict[str, Any]]:
    rows = [result(luck, "hand-separable", "hand-made separable", "hand", strength=1.05e-2, flops=705_000)]
    for i in range(6):
        key = genotype(luck).key
        strength = luck.uniform(4e-3, 8e-3)
        rows.append(result(luck, f"matched{i}-{key}", f"random cell {i}", "random", strength=strength, flops=690_000))
    for name, width, strength in (("mobilenet_v2", 0.375, 4e-3), ("resnet20", 0.281, 1.6e-3), ("vgg16", 0.0469, 2e-3)):
        for size, label, flops in (("scaled", f"{name} x {width:.3g}", 700_000), ("own", name, 9_000_000)):
            for training, short in (("fault-tolerant", "ftt"), ("plain", "plain")):
                kept = strength * (1.5 if size == "own" else 1) * (1 if training == "fault-tolerant" else 0.3)
                which = {"training": training, "size": size}
                rows.append(
                    result(luck, f"{name}-{size}-{short}", label, "baseline", strength=kept, flops=flops, **which)
                )
    return rows


def _ranking(folder: Path, luck: random.Random) -> dict[str, Any]:
    points = []
    for i, row in enumerate(read(folder / "study/candidates.json")[:16]):
        point = {"key": row["key"], "family": "random" if i % 2 else "finalist", "flops": row["flops"]}
        shared = {"supernet_clean": row["clean"], "supernet_faulty": row["faulty"]}
        final = {"final_clean": 0.95 + 0.04 * luck.random(), "final_faulty": 0.4 + row["faulty"] + luck.gauss(0, 0.02)}
        points.append({**point, **shared, **final, "parameters": row["parameters"]})
    taus = {"clean": (0.31, -0.05, 0.6), "faulty": (0.72, 0.5, 0.86), "flops": (0.44, 0.1, 0.7)}
    named = {f"tau_{name}": dict(zip(("value", "low", "high"), tau, strict=True)) for name, tau in taus.items()}
    gain = {"mean": 0.062, "low": 0.031, "high": 0.094, "n": 6}
    return {"n": 16, **named, "gain_over_random": gain, "points": points}


_STAGES = {"start": _start, "supernet": _supernet, "study": _study, "winner": _winner, "end": _end}
