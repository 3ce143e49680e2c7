"""Options that several commands take, what they set, and the refusal of those that would change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from ftnas.cli.completing import complete_data_sets
from ftnas.errors import FtnasError

Net = Annotated[
    str,
    Argument(
        metavar="NET",
        help="A run folder, for its winner; a training's or an exported folder; FILE.py:NAME, FILE.pt2 or FILE.onnx; "
        "the .json or .nir file of a spiking net.",
    ),
]
Bits = Annotated[int | None, Option("--bits", help="Of a model of your own, weights and features; by default 8.")]
Weights = Annotated[Path | None, Option("--weights", help="A .safetensors file for FILE.py:NAME.")]
Data = Annotated[
    str | None,
    Option(
        "--data",
        help="A data set; by default the run's own. Your own models need it. Of a spiking graph its task.",
        autocompletion=complete_data_sets,
    ),
]
DataDirectory = Annotated[
    Path | None, Option("--data-dir", help="CIFAR-10's folder or archive, an .npz file, or a folder of images.")
]
TrainingDataDirectory = Annotated[
    Path | None,
    Option("--data-dir", help="CIFAR-10's folder or archive, an .npz file, or a folder of images by class."),
]
Images = Annotated[int | None, Option("--images", help="Measure on so many of the test images only.")]
BatchSize = Annotated[int | None, Option("--batch-size", help="Images of one forward pass.")]
Threads = Annotated[int, Option("--workers", help="Threads.")]
Study = Annotated[str, Option("--study", help="Chips and draws are the same for all nets of one study.")]
ExperimentFolder = Annotated[
    Path | None, Option("--out", help="The folder for the results; by default runs/ and the experiment's name.")
]
Storage = Annotated[
    str | None,
    Option(
        "--storage",
        envvar="FTNAS_STORAGE",
        help="Where search and workers meet: postgresql://, mysql://, sqlite:/// or grpc://HOST:PORT. By default a "
        "file of the run folder.",
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """Return those of ``options`` that were given."""
    return {name: value for name, value in options.items() if value is not None}


def training_sections(
    data: str | None, data_dir: Path | None, *, chips: int | None, epochs: int | None
) -> dict[str, dict[str, Any]]:
    """Return the sections of the configuration of a training that these options set."""
    sections = {
        "campaign": given(chips=chips),
        "data": given(name=data, directory=None if data_dir is None else str(data_dir)),
        "training": given(epochs=epochs),
    }
    return {name: keys for name, keys in sections.items() if keys}


def refuse(error: type[FtnasError], reason: str, **options: object) -> None:
    """Raise ``error`` for the first of ``options`` that was given: it would change nothing, for this ``reason``."""
    for name in given(**options):
        raise error(f"--{name.replace('_', '-')}: {reason}")
