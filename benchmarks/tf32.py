"""What tf32 does to accuracy, shown without a GPU: the experiment ``precision`` with every factor rounded as there.

    python benchmarks/tf32.py [--out FOLDER]

A GPU's tf32 rounds both factors of a convolution or matrix product to 11 significant bits and sums in float32 (NVIDIA,
"NVIDIA A100 Tensor Core GPU Architecture", 2020). The same trainings run once as they are and once with factors rounded
so, forward and backward; the order of sums is that of the CPU in both. The same command goes on after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from timing import print_rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ftnas.campaign.estimates import DROP
from ftnas.files import write_json
from ftnas.pipeline.experiments import ExperimentConfig, load_experiment, run_experiment
from ftnas.pipeline.grids import mean_interval

HERE = Path(__file__).resolve().parent
EXPERIMENT = HERE.parent / "experiments" / "precision.yaml"
ROUNDED = 13  # bits that a float32's fraction has and tf32's has not
RESULTS = HERE / "results" / "devices" / "tf32.json"

# Which arguments of an operation are factors.
FACTORS: Mapping[Any, Sequence[int]] = {
    torch.ops.aten.convolution.default: (0, 1),
    torch.ops.aten.convolution_backward.default: (0, 1, 2),
    torch.ops.aten.mm.default: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.bmm.default: (0, 1),
}


def to_tf32(x: Tensor) -> Tensor:
    """Return ``x`` rounded to 11 significant bits, ties away from zero, as the hardware's conversion does."""
    return ((x.detach().view(torch.int32) + (1 << ROUNDED - 1)) & -(1 << ROUNDED)).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Rounds the factors of every product of float32 numbers in the block."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do ``func`` on rounded factors."""
        factors = FACTORS.get(func, ())
        rounded = [to_tf32(value) if index in factors else value for index, value in enumerate(args)]
        return func(*rounded, **(kwargs or {}))


def trained(config: ExperimentConfig, folder: Path, *, rounded: bool) -> dict[str, Any]:
    """Return what the trainings of ``config`` reached, with factors as they are or ``rounded``."""
    with Tf32() if rounded else nullcontext():  # type: ignore[no-untyped-call]
        found: dict[str, Any] = run_experiment(config, folder).results["rows"][0]
    return found


def compared(rows: Mapping[str, Mapping[str, Any]], values: Callable[[Mapping[str, Any]], list[float]]) -> list[str]:
    """Return both accuracies and their difference, paired by seed, in points."""
    plain, rounded = (values(rows[name]) for name in ("float32", "tf32"))
    gains = [theirs - ours for ours, theirs in zip(plain, rounded, strict=True)]
    found = mean_interval(gains, bounds=DROP)
    accuracies = [f"{100 * sum(some) / len(some):.1f}" for some in (plain, rounded)]
    return [*accuracies, "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * found[key] for key in ("mean", "low", "high")))]


def main() -> None:
    """Train, compare, print and write."""
    parser = argparse.ArgumentParser(description="Train with factors rounded as tf32's against trainings without.")
    parser.add_argument("--out", type=Path, default=Path("runs/tf32"), help="folder (default: runs/tf32)")
    folder = parser.parse_args().out
    whole = load_experiment(EXPERIMENT)
    config = whole.model_copy(
        update={"axes": {name: {"float32": axis["float32"]} for name, axis in whole.axes.items()}}
    )
    rows = {name: trained(config, folder / name, rounded=name == "tf32") for name in ("float32", "tf32")}
    kinds: Mapping[str, Callable[[Mapping[str, Any]], list[float]]] = {
        "clean": lambda row: row["clean_of_seeds"],
        "MiBB 3e-3": lambda row: row["faults"][0]["seeds"],
    }
    table = [(name, *compared(rows, values)) for name, values in kinds.items()]
    print_rows(("accuracy (%)", "float32", "tf32", "difference"), table, f"{len(config.seeds)} seeds, paired")
    write_json(RESULTS, {"seeds": list(config.seeds), "chips": config.chips, **rows})


if __name__ == "__main__":
    main()
