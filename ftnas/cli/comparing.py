"""``ftnas compare`` and ``ftnas train``. Torch is imported inside the commands only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ftnas.cli.completing import complete_baselines, complete_data_sets, complete_faults, complete_spaces
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import TrainingDataDirectory, given, refuse, training_sections
from ftnas.cli.output import Json, console, print_json, print_table, print_warning, right, table
from ftnas.cli.ranks import one_voice
from ftnas.cli.searches import alone, folder_for, is_search, run_folder, train_search
from ftnas.cli.spiking import print_layers
from ftnas.errors import ConfigError

if TYPE_CHECKING:
    from ftnas.pipeline.net_comparison import NetComparison

Nets = Annotated[
    list[str],
    Argument(
        help="A finished search and baselines to train beside its winner; or any nets: run folders, trainings, "
        "exported nets, FILE.py:NAME, FILE.pt2, FILE.onnx, baselines. Baselines and classes are trained, the others "
        "taken as they are. All are held against the first.",
        autocompletion=complete_baselines,
    ),
]
Size = Annotated[
    list[str] | None,
    Option("--size", help="Of baselines: own, scaled (to the first net's FLOPs), or both by repeating."),
]
Trainings = Annotated[
    list[str] | None, Option("--training", help="fault-tolerant, plain, or both by repeating, for what is trained.")
]
Faults = Annotated[
    list[str] | None,
    Option(
        "--faults",
        help="What fails: features.mac_bit_bias:1e-3,1e-2. The first rate is trained for, the others are measured "
        "too. Repeatable for faults that come together.",
        autocompletion=complete_faults,
    ),
]
Data = Annotated[
    str | None,
    Option(
        "--data",
        help="A data set; by default that of the first run or training given.",
        autocompletion=complete_data_sets,
    ),
]
TrainData = Annotated[
    str | None, Option("--data", help="A data set; by default digits.", autocompletion=complete_data_sets)
]
CompareOut = Annotated[
    Path | None, Option("--out", help="The folder for the results of any nets. The same command goes on there.")
]
TrainOut = Annotated[
    Path | None, Option("--out", help="The folder for the trained net. The same command goes on there.")
]
TrainRun = Annotated[
    Path | None,
    Option("--run", help="Of a search's YAML file: its run folder, as of ftnas search; --out under torchrun."),
]
Chips = Annotated[int | None, Option("--chips", help="Faulty chips to measure on; at least 20.")]
Epochs = Annotated[int | None, Option("--epochs", help="Of each training; the same as --set training.epochs=...")]
Bits = Annotated[int | None, Option("--bits", help="Of weights and features of your own nets; by default 8.")]
Assignments = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Change a key, such as training.batch_size=128. Repeatable."),
]
Kind = Annotated[
    str | None,
    Option("--training", help="fault-tolerant, or plain, which trains without the faults that are measured."),
]
Net = Annotated[
    str,
    Argument(
        help="A baseline, the .json file of a genotype, or FILE.py:NAME; a layered spiking net, or a YAML file of one; "
        "or the YAML file of a search, for its supernet and full trainings.",
        autocompletion=complete_baselines,
    ),
]
FaultMap = Annotated[
    Path | None, Option("--map", help="Of a layered spiking net: what is broken on its chip (.json, .csv).")
]
Space = Annotated[
    str | None,
    Option("--space", help="Of a genotype: a bundled search space, or a YAML file.", autocompletion=complete_spaces),
]

OUT = Path("runs/compare")


def compare(
    nets: Nets,
    size: Size = None,
    training: Trainings = None,
    faults: Faults = None,
    data: Data = None,
    data_dir: TrainingDataDirectory = None,
    out: CompareOut = None,
    chips: Chips = None,
    epochs: Epochs = None,
    bits: Bits = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Compare nets: train those that need it, attack all on the same chips, write one table and a page."""
    with one_line_errors():
        from ftnas.configuration import override

        keys = {**_keys(faults, data, data_dir, chips, epochs), **given(bits=bits)}
        if _is_for_run(nets) and not (keys or out or assignments):
            return _compare_run(Path(nets[0]), nets[1:], size, training, as_json=as_json)
        from ftnas import api

        content = {**keys, **given(sizes=size, trainings=training), "nets": nets}
        print_nets(api.compare(override(content, assignments or []), out or OUT), as_json=as_json)


def train(
    net: Net,
    out: TrainOut = None,
    run: TrainRun = None,
    training: Kind = None,
    faults: Faults = None,
    data: TrainData = None,
    data_dir: TrainingDataDirectory = None,
    space: Space = None,
    chips: Chips = None,
    epochs: Epochs = None,
    bits: Bits = None,
    map: FaultMap = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Train a net, with faults if some are given, and measure it; --out then is a net for every other command.

    Under torchrun its processes share each step: torchrun --nproc-per-node 4 -m ftnas train ...
    """
    with one_voice(), one_line_errors():
        from ftnas import api
        from ftnas.configuration import override
        from ftnas.pipeline.layered_training_config import is_layered_training

        if is_search(net) and not is_layered_training(net):
            place = run_folder(run, out)
            own = {"training": training, "faults": faults, "data": data, "space": space, "chips": chips,
                   "epochs": epochs, "bits": bits, "map": map}  # fmt: skip
            refuse(ConfigError, "is for the training of one net; change the search with --set KEY=VALUE", **own)
            return train_search(Path(net), place, assignments or [], data_dir, as_json=as_json)
        out = folder_for(net, out, run)
        own = {**given(kind=training, space=space, bits=bits, map=None if map is None else str(map)), "net": net}
        if is_layered_training(net):
            alone("a spiking net")
            content = {**training_sections(data, data_dir, chips=chips, epochs=epochs), **given(faults=faults), **own}
            return print_layers(api.train(override(content, assignments or []), out), out, as_json=as_json)
        content = {**_keys(faults, data, data_dir, chips, epochs), **own}
        print_training(api.train(override(content, assignments or []), out), out, as_json=as_json)


def _keys(
    faults: Sequence[str] | None, data: str | None, data_dir: Path | None, chips: int | None, epochs: int | None
) -> dict[str, Any]:
    """Return the keys of a configuration that the options set."""
    from ftnas.pipeline.config import faults_and_rates

    sections = training_sections(data, data_dir, chips=chips, epochs=epochs)
    if not faults:
        return sections
    at_first, rates = faults_and_rates(faults)
    return {**sections, "faults": at_first, "campaign": {"rates": rates, **sections.get("campaign", {})}}


def _is_for_run(nets: Sequence[str]) -> bool:
    """Return whether these are a search and baselines for its own comparison, and not any nets."""
    from ftnas.networks import BASELINES

    return not any(_is_net(text) for text in nets[1:]) and nets[0] not in BASELINES and not _is_other_net(nets[0])


def _is_other_net(text: str) -> bool:
    """Return whether ``text`` names a net that is not a run folder; what is nothing at all is no net."""
    from ftnas.pipeline.run_folder import CONFIG

    path = Path(text)
    return _is_net(text) and not (path.is_dir() and ((path / CONFIG).exists() or not _holds_net(path)))


def _holds_net(folder: Path) -> bool:
    return (folder / "model.json").exists() or any(folder.glob("*.safetensors"))


def _is_net(text: str) -> bool:
    """Return whether ``text`` can only mean a net from a file or folder."""
    return Path(text).exists() or ":" in text or Path(text).suffix in (".py", ".pt2", ".onnx", ".safetensors")


def _compare_run(
    folder: Path,
    baselines: Sequence[str],
    size: Sequence[str] | None,
    training: Sequence[str] | None,
    *,
    as_json: bool,
) -> None:
    """Let more baselines join the comparison in a run folder."""
    from ftnas.cli.printing import print_comparison
    from ftnas.configuration import validate
    from ftnas.pipeline.config import ComparisonSettings
    from ftnas.pipeline.run import compare_run
    from ftnas.pipeline.run_folder import reopen_run

    changes = given(baselines=list(baselines) or None, sizes=size, trainings=training)
    content = reopen_run(folder).config.comparison.model_dump() | changes
    settings = validate(ComparisonSettings, content, source="ftnas compare")
    print_comparison(compare_run(folder, settings), as_json=as_json)


def print_nets(found: NetComparison, *, as_json: bool) -> None:
    """Print a comparison of nets, and where its page is."""
    if as_json:
        return print_json({**found.comparison, "folder": str(found.folder), "report": str(found.report)})
    from ftnas.pipeline.net_tables import difference, measured, verdict
    from ftnas.report import wording
    from ftnas.report.net_comparison import points, rule_of
    from ftnas.report.results import Comparison

    comparison = Comparison.model_validate(found.comparison)
    rates = [f"at {score.rate:g}" for score in comparison.rows[0].rates]
    costs = ("MFLOPs", "parameters")
    nets = table("network", *map(right, ("clean", *rates, "points")), "it is", *map(right, costs), "weights")
    for row in comparison.rows:
        scores = [wording.plus_minus(score.mean, score.low, score.high) for score in row.rates]
        against = (points(difference(row, comparison.rate)), verdict(comparison, row))
        cost = (f"{row.flops / 1e6:.3f}", f"{row.parameters:,}")
        nets.add_row(row.title, f"{100 * row.clean:.1f}", *scores, *against, *cost, row.origin)
    output = console()
    output.print(nets)
    output.print(f"{measured(comparison)} {rule_of(comparison)}", soft_wrap=True)
    for warning in found.comparison["warnings"]:
        print_warning(output, warning)
    output.print(f"report: {found.report}", soft_wrap=True)


def print_training(result: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Print how good a trained net is, and where it is."""
    if as_json:
        return print_json({**result, "folder": str(out)})
    from ftnas.report import wording

    output = console()
    names = [f"at {score['rate']:g}" for score in result["rates"]]
    nets = table("network", "training", *map(right, ("clean", *names, "MFLOPs", "parameters")))
    scores = [wording.plus_minus(score["mean"], score["low"], score["high"]) for score in result["rates"]]
    clean, megaflops = f"{100 * result['clean']:.1f}", f"{result['flops'] / 1e6:.3f}"
    nets.add_row(result["label"], result["training"], clean, *scores, megaflops, f"{result['parameters']:,}")
    print_table(output, nets)
    if result["failure"]:
        print_warning(output, f"{result['label']} {result['failure']}: its accuracy is that of guessing")
    output.print(f"net: {out}", soft_wrap=True)
