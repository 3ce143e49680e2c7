"""One training outside a search: of a baseline, of a cell, or of a net of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftnas.data import Dataset
from ftnas.distributed import first_does
from ftnas.errors import ModelError, SpaceError
from ftnas.holding import holding
from ftnas.networks import BASELINES
from ftnas.pipeline.cells import training_rates
from ftnas.pipeline.config import Recipe, SizeKind, TrainConfig
from ftnas.pipeline.jobs import Result, TrainingJob, load_dataset, own_spec
from ftnas.pipeline.limits import check_cores, check_training
from ftnas.pipeline.nets import OwnNet, float_net, own_net, quantised_net
from ftnas.pipeline.run_folder import TRAIN_CONFIG, Workplace, open_workplace
from ftnas.pipeline.workers import run_jobs
from ftnas.runtime import choose_device, use_threads
from ftnas.space import Genotype, SearchSpace, bundled_spaces, load_space

# The keys of a training that are for one kind of net.
KEYS = {"space": "genotype", "width": "baseline", "numbers": "baseline", "bits": "net of your own"}


@dataclass(frozen=True)
class _Net:
    """What is to be trained: ``spec`` is ``TrainingJob.model``; ``space`` is that of a cell."""

    label: str
    family: Literal["baseline", "own"]
    spec: Mapping[str, Any]
    size: SizeKind = "own"
    space: SearchSpace | None = None


def train_net(config: TrainConfig, folder: Path) -> Result:
    """Train the net of ``config`` and measure it under its faults; ``folder`` then is a net for every other command.

    Without faults the training is plain. The same call goes on where an earlier one was cut off.

    Args:
        config: which net, which images, how.
        folder: for the weights, the curves and ``result.json``, whose content is returned.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    work, job = prepare_training(config, folder)
    with holding(folder, TRAIN_CONFIG):
        [result] = run_jobs(work, [job], title=job.label, workers=1)
        return result


def prepare_training(config: TrainConfig, folder: Path) -> tuple[Workplace, TrainingJob]:
    """Make ``folder`` that of the training of ``config``, or find it so; see ``train_net``."""
    net = _checked_net(config)

    def open_folder() -> None:
        open_workplace(folder, config, net.space)

    first_does(open_folder)
    use_threads(config.threads)  # looking at a user's own net changes it
    work = Workplace(folder, config, net.space)
    return work, _job(work, config, net)


def check_net(config: TrainConfig) -> dict[str, Any]:
    """Refuse a training that is impossible, before any work; return its net and the space of that as plain data.

    Raises:
        FtnasError: its net, its data, or what it asks of them.
    """
    net = _checked_net(config)
    use_threads(config.threads)
    return {"net": dict(net.spec), "space": None if net.space is None else net.space.to_dict()}


def _checked_net(config: TrainConfig) -> _Net:
    check_cores(config.threads)
    use_threads(config.threads)
    data = load_dataset(config, choose_device(config.device))
    check_training(config, data)
    return _net_of(config, data)


def check_own_net(own: OwnNet, data: Dataset, *, bits: int, config: Recipe) -> None:
    """Refuse a net of the user's own that cannot be quantised or does not fit ``data``, before any work.

    Raises:
        ModelError: names what is wrong with it.
    """
    origin = f"{own.file}:{own.name}"
    model = float_net(own, data, seed=config.seed)
    quantised_net(model, data, name=own.label, origin=origin, bits=bits, device=config.device)


def _net_of(config: TrainConfig, data: Dataset) -> _Net:
    text = config.net
    if text in BASELINES:
        _check_keys(config, "baseline")
        spec = {"baseline": text, "width": config.width, "numbers": config.numbers.to_dict()}
        scaled = config.width != 1
        return _Net(f"{text} x {config.width:.3g}" if scaled else text, "baseline", spec, "scaled" if scaled else "own")
    if text.endswith(".json"):
        _check_keys(config, "genotype")
        return _cell(Path(text), config.space)
    own = own_net(text)
    if own is None or not own.name:
        raise ModelError(
            f"{text}: is nothing to train; allowed is a baseline ({', '.join(BASELINES)}), a genotype in a .json file "
            "or FILE.py:NAME"
        )
    _check_keys(config, "net of your own")
    check_own_net(own, data, bits=config.bits, config=config)
    return _Net(own.label, "own", own_spec(own.file, own.name, bits=config.bits))


def _check_keys(config: TrainConfig, kind: str) -> None:
    """Refuse what was set for another kind of net: it would change nothing."""
    for key, own in KEYS.items():
        if kind != own and getattr(config, key) != TrainConfig.model_fields[key].default:
            raise ModelError(f"{key}: is for a {own}, and {config.net} is a {kind}")


def _cell(file: Path, space_name: str | None) -> _Net:
    if space_name is None:
        raise SpaceError(f"space: is needed for the genotype {file}; choose from {', '.join(bundled_spaces())}")
    space = load_space(space_name)
    try:
        genotype = Genotype.from_json(file.read_text(encoding="utf-8"))
        space.check(genotype)
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{file}: cannot be read ({error})") from None
    except SpaceError as error:
        raise SpaceError(f"{file}: {error}") from None
    spec = {"genotype": genotype.to_dict(), "channels": space.final.channels}
    return _Net(f"cell {genotype.key}", "own", spec, space=space)


def _job(work: Workplace, config: TrainConfig, net: _Net) -> TrainingJob:
    return TrainingJob(
        name=net.label.replace(" ", "-"),
        label=net.label,
        family=net.family,
        model=net.spec,
        training=config.kind if config.faults or config.training.faults else "plain",
        size=net.size,
        part="whole",
        epochs=config.training.epochs,
        chips=config.campaign.chips,
        rates=training_rates(work),
        seed=config.seed,
    )
