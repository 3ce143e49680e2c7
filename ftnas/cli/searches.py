"""``ftnas train`` of a search's YAML file. Torch is imported inside the functions only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftnas.cli.output import console, print_json
from ftnas.errors import ConfigError


def is_search(text: str) -> bool:
    """Return whether ``text`` can only mean the YAML file of a search."""
    return Path(text).suffix in (".yaml", ".yml")


def folder_for(net: str, out: Path | None, run: Path | None) -> Path:
    """Return the folder for the training of one ``net``.

    Raises:
        ConfigError: none was given, or it was given as that of a search.
    """
    if run is not None:
        raise ConfigError(f"--run: is for the YAML file of a search; give {net} a folder with --out")
    if out is None:
        raise ConfigError(f"--out: a folder for the trained net {net} is needed")
    return out


def run_folder(run: Path | None, out: Path | None) -> Path | None:
    """Return the run folder that was given; torchrun takes ``--run`` for an option of its own, so ``--out`` does too.

    Raises:
        ConfigError: both were given.
    """
    if run is not None and out is not None:
        raise ConfigError("--run, --out: both name the run folder; give one of them")
    return run or out


def alone(what: str) -> None:
    """Refuse to train ``what`` in several processes.

    Raises:
        ConfigError: torchrun started some.
    """
    from ftnas.distributed import ranks

    if ranks().size > 1:
        raise ConfigError(f"{what} is trained by one process; start it without torchrun, which started {ranks().size}")


def train_search(
    config: Path,
    run: Path | None,
    assignments: Sequence[str],
    data_directory: Path | None,
    *,
    as_json: bool,
) -> None:
    """Train what the search in ``config`` needs next, and print what that was.

    Args:
        config: a YAML file.
        run: its run folder, if not ``runs/`` and its name.
        assignments: changes of keys.
        data_directory: where its images are, if not where it says.
        as_json: print JSON.

    Raises:
        ConfigError: the search is not of cells.
    """
    from ftnas.configuration import override, read_yaml
    from ftnas.pipeline.config import run_config
    from ftnas.pipeline.shared_training import train_search as train

    content = override(read_yaml(config), assignments)
    if content.get("family", "cells") != "cells":
        raise ConfigError(f"{config}: family: only searches of cells are trained so, got {content['family']!r}")
    settings = run_config(content, config, data_directory=data_directory)
    done = train(settings, run or Path("runs") / settings.name)
    if as_json:
        return print_json(
            {"folder": str(done.folder), "trained": list(done.trained), "remains": done.remains,
             "processes": done.processes}
        )  # fmt: skip
    output = console()
    output.print(f"trained by {done.processes} process{'es' * (done.processes > 1)}: {', '.join(done.trained)}")
    output.print(f"ftnas search {config} --run {done.folder} goes on with {done.remains}", soft_wrap=True)
