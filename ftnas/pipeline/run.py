"""The main job from end to end; each stage is skipped where its result is there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.data import Dataset
from ftnas.errors import RunError
from ftnas.files import read_json, write_json
from ftnas.holding import holding
from ftnas.pipeline.comparison import compare, comparison_warnings
from ftnas.pipeline.config import ComparisonSettings, RunConfig
from ftnas.pipeline.finalists import choose_winner, rank
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.limits import check_batch, check_cores, check_limits, check_training
from ftnas.pipeline.logbook import Logbook
from ftnas.pipeline.run_folder import CONFIG, RunFolder, open_run, reopen_run
from ftnas.pipeline.search_stages import StudyRequest, run_study, train_supernet
from ftnas.pipeline.shared_weights import make_scorer
from ftnas.pipeline.vulnerability import measure_vulnerability
from ftnas.pipeline.warnings import search_warnings, training_warnings
from ftnas.report.page import write_report
from ftnas.runtime import choose_device, use_threads
from ftnas.search.settings import check_controller
from ftnas.space import Genotype, load_space
from ftnas.training import check_computing
from ftnas.untrusted import plain_name

LAST = "warnings.json"  # what a search writes when all else is there
SUMMARY = (LAST, "winner/result.json", "ranking.json", "comparison.json")  # without one of these it is not finished
TRAINING_CURVES = ("loss", "clean_loss", "faulty_loss", "clean_accuracy")


@dataclass(frozen=True)
class RunSummary:
    """What a finished run has to say: plain data, as in the files of the run folder."""

    folder: Path
    winner: dict[str, Any]
    ranking: dict[str, Any]
    comparison: dict[str, Any]
    warnings: list[str]
    report: Path


def search(config: RunConfig, folder: Path, request: StudyRequest | None = None) -> RunSummary:
    """Search, train, measure, compare and report in ``folder``; goes on where an earlier start was cut off.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    check_cores(config.threads, config.workers)
    use_threads(config.threads)
    space = load_space(config.space)
    check_controller(config.search)
    request = request or StudyRequest()
    request.check(config, space)
    data = load_dataset(config, choose_device(config.device))
    check_images(config, data)
    check_limits(space, config.search, data)
    with holding(folder, CONFIG):
        run = open_run(folder, config, space)
        if not all(run.file(name).exists() for name in SUMMARY):
            with Logbook(run.file("tensorboard")) as logbook:
                _search_and_compare(run, data, logbook, request)
        return _finish(run)


def check_images(config: RunConfig, data: Dataset) -> None:
    """Refuse augmentation or batches that do not fit the images, before any work."""
    share = config.supernet.validation_share
    config.supernet.augmentation.check(data.image_shape)
    check_computing("supernet", config.supernet, None, data.train_images.device)
    check_batch("supernet", config.supernet.batch_size, int(len(data.train_images) * min(share, 1 - share)))
    check_training(config, data)


def _search_and_compare(run: RunFolder, data: Dataset, logbook: Logbook, request: StudyRequest) -> None:
    supernet, architecture = train_supernet(run, data, logbook)
    candidates = run_study(run, data, supernet, architecture, logbook, request)
    winner = choose_winner(run, data)
    scoring = run.config.scoring
    rank(run, make_scorer(run, data, supernet, images=scoring.images, chips=scoring.chips))
    comparison = compare(run, data, winner, run.config.comparison)
    measure_vulnerability(run, data)
    result = comparison["rows"][0]
    _log_trainings(run, comparison["rows"], logbook)
    logbook.front(
        [(c.cost.flops, run.config.search.accuracy(c.score)) for c in candidates],
        winner=(result["flops"], result["rates"][0]["mean"]),
    )
    logbook.hparams(
        {"seed": run.config.seed, "fault": comparison["fault"], "rate": comparison["rate"],
         "relaxation": run.config.supernet.relaxation, "trials": run.config.search.trials},
        {"clean": result["clean"], "faulty": result["rates"][0]["mean"], "megaflops": result["flops"] / 1e6},
    )  # fmt: skip
    _warn(
        run,
        [
            *search_warnings(run, candidates, winner),
            *training_warnings(run),
            *comparison_warnings(run.config.comparison, comparison["rows"]),
        ],
    )


def _log_trainings(run: RunFolder, rows: list[dict[str, Any]], logbook: Logbook) -> None:
    """Log the curves of the full trainings, which other processes may have done."""
    for row in rows:
        home = run.file("trainings", plain_name(row["name"], run.file("comparison.json")))
        for record in read_json(home / "history.json"):
            curves = {f"training/{row['name']}/{key}": record[key] for key in TRAINING_CURVES}
            logbook.scalars(curves, step=record["epoch"])


def _warn(run: RunFolder, warnings: list[str]) -> None:
    """Write down what a reader must know, each once."""
    write_json(run.file(LAST), list(dict.fromkeys(warnings)))


def compare_run(folder: Path, settings: ComparisonSettings | None = None) -> RunSummary:
    """Compare the winner of ``folder`` with more networks than its configuration names; their rows join the table.

    Raises:
        RunError: the folder holds no finished search.
    """
    run = reopen_run(folder)
    if not run.file(LAST).exists():
        raise RunError(f"{folder}: holds no finished search; run ftnas search first")
    use_threads(run.config.threads)
    data = load_dataset(run.config, choose_device(run.config.device))
    with holding(folder, CONFIG):
        winner = Genotype.from_dict(read_json(run.file("winner", "genotype.json")))
        settings = settings or run.config.comparison
        comparison = compare(run, data, winner, settings)
        added = [*training_warnings(run), *comparison_warnings(settings, comparison["rows"])]
        _warn(run, [*read_json(run.file(LAST)), *added])
        return _finish(run)


def _finish(run: RunFolder) -> RunSummary:
    return RunSummary(
        folder=run.path,
        winner=read_json(run.file("winner", "result.json")),
        ranking=read_json(run.file("ranking.json")),
        comparison=read_json(run.file("comparison.json")),
        warnings=read_json(run.file(LAST)),
        report=write_report(run.path),
    )
