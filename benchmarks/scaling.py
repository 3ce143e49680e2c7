"""How a search grows: candidates per minute, what storage and controller cost, memory, and the cost of a candidate.

    python benchmarks/scaling.py workers storages controller flight memory cost --run runs/digits

Each part prints a table and writes ``benchmarks/results/scaling/PART.json``. ``workers``, ``memory`` and ``cost`` need
the folder of a finished search, of which they use copies; ``storages`` starts a PostgreSQL server of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from scaling_boards import storages
from scaling_sizes import cost, memory
from scaling_support import SPACE, Options, Row, cost_of, instant, scoring_seconds
from timing import parse_count, print_rows, verdict

from ftnas.files import write_json
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.run_folder import RunFolder, describe_environment, reopen_run
from ftnas.pipeline.scoring_team import scoring_team
from ftnas.pipeline.search_stages import final_cost
from ftnas.pipeline.shared_weights import WEIGHTS, read_supernet, study_scorer
from ftnas.runtime import use_threads
from ftnas.search.candidates import Candidate, Score
from ftnas.search.controller import run_study
from ftnas.search.settings import ControllerSettings

RESULTS = Path(__file__).parent / "results" / "scaling"


@contextmanager
def copied(run: Path, **changes: Any) -> Iterator[RunFolder]:
    """Yield a copy of ``run`` in which the supernet is trained and the study has not begun."""
    with tempfile.TemporaryDirectory(prefix="ftnas-scaling-") as folder:
        path = Path(folder)
        for name in ("config.yaml", "space.yaml", "/".join(WEIGHTS)):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, path / name)
        there = reopen_run(path)
        yield RunFolder(path, there.config.model_copy(update=changes), there.space)


def study(run: RunFolder, settings: ControllerSettings) -> tuple[list[float], list[Candidate], Row]:
    """Run a study as a search does; return when each candidate was told, the candidates, and memory in use."""
    data = load_dataset(run.config, torch.device("cpu"))
    scorer = study_scorer(run, data, read_supernet(run, data))
    times: list[float] = []
    used: Row = {}

    def on_trial(number: int, candidate: Candidate | None) -> None:
        if candidate is not None:
            times.append(time.monotonic())
            if len(times) == settings.trials // 2:
                used.update(memory_of_all())

    with scoring_team(run, None) as team:
        candidates = run_study(
            run.space,
            evaluate=scorer if team is None else team.score,
            cost=lambda genotype: final_cost(run, data, genotype),
            settings=settings,
            first=(),
            journal=run.file("study", "journal.log"),
            seed=run.config.seed,
            on_trial=on_trial,
            sharing=team,
        )
    return times, candidates, used


def memory_of_all() -> Row:
    """Return the memory of this process and its children in bytes; what they share is shared out (PSS)."""
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()
    found: Row = {"processes": 0, "pss": 0, "rss": 0}
    for process in (str(own), *children):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
        found = {
            "processes": found["processes"] + 1,
            "pss": found["pss"] + sizes["Pss:"],
            "rss": found["rss"] + sizes["Rss:"],
        }
    return found


def workers(options: Options) -> Row:
    """Measure candidates per minute of one and of two workers, by turns, start-up left out."""
    settings = reopen_run(options.run).config.search.model_copy(update={"trials": options.trials})
    rows: list[Row] = []
    scores: dict[str, Score] = {}
    for turn in range(options.rounds):
        for count, flight in ((1, None), (2, None), (1, 4), (2, 4)):
            chosen = settings.model_copy(update={"in_flight": flight})
            with copied(options.run, workers=count) as run:
                times, candidates, used = study(run, chosen)
            equal = all(scores.setdefault(c.genotype.key, c.score) == c.score for c in candidates)
            # From the tenth on: until then processes start, import and load.
            rate = 60 * (len(times) - 10) / (times[-1] - times[9])
            rows.append({"turn": turn, "workers": count, "in_flight": flight, "per_minute": rate,
                         "equal": equal, "memory": used})  # fmt: skip
    ratios = {
        # Of the same proposals: others cost more or less to score.
        name: statistics.median(_rate(rows, turn, 2, flight) / _rate(rows, turn, 1, flight) for turn in _turns(rows))
        for name, flight in (("as one worker proposes", None), ("4 in flight", 4))
    }
    largest = max(row["memory"]["pss"] for row in rows)
    print_rows(
        ("two workers", "x one", "goal", ""),
        [(name, f"{ratio:.2f}", *verdict(ratio, 1.8, at_least=True)) for name, ratio in ratios.items()],
        f"candidates per minute, {options.trials} trials, {options.rounds} rounds; of one worker: "
        f"{statistics.median(row['per_minute'] for row in rows if row['workers'] == 1):.1f}; "
        f"scores of equal architectures equal: {all(row['equal'] for row in rows)}",
    )
    print_rows(
        ("memory", "GiB", "goal", ""),
        [("all processes of a search with two workers", f"{largest / 2**30:.2f}", *verdict(largest / 2**30, 2.0))],
        "shared pages shared out",
    )
    return {"rows": rows, "ratios": ratios, "memory": largest}


def _turns(rows: Sequence[Row]) -> list[int]:
    return sorted({row["turn"] for row in rows})


def _rate(rows: Sequence[Row], turn: int, count: int, flight: int | None) -> float:
    [row] = [r for r in rows if (r["turn"], r["workers"], r["in_flight"]) == (turn, count, flight)]
    return float(row["per_minute"])


def controller(options: Options) -> Row:
    """Measure what the search itself takes for a trial, proposing and its journal, and what going on costs."""
    second = scoring_seconds(options.run)
    found: Row = {}
    for sampler in ("nsga2", "random", "tpe"):
        with tempfile.TemporaryDirectory(prefix="ftnas-scaling-") as folder:
            journal = Path(folder) / "journal.log"
            settings = ControllerSettings(sampler=sampler, trials=options.trials)
            times, began = _propose(journal, settings)
            seconds = [after - before for before, after in zip([began, *times], times, strict=False)]
            again, began_again = _propose(journal, settings)
            found[sampler] = {
                "first": statistics.median(seconds[:100]),
                "last": statistics.median(seconds[-100:]),
                "resume": again[-1] - began_again,
                "bytes": journal.stat().st_size,
            }
    rows = []
    for sampler, measured in found.items():
        share = 100 * measured["last"] / second
        ms = [f"{1000 * measured[name]:.2f}" for name in ("first", "last")]
        resumed = (f"{measured['resume']:.2f}", *verdict(measured["resume"], 5.0))
        rows.append((sampler, *ms, f"{share:.2f}", *verdict(share, 2.0), *resumed))
    print_rows(
        ("sampler", "ms at first", f"ms at {options.trials}", "% of scoring", "goal", "", "s to go on", "goal", ""),
        rows,
        f"of a trial, proposal and journal; a candidate takes {second:.2f} s to score",
    )
    return {"trials": options.trials, "samplers": found, "scoring_seconds": second}


def _propose(journal: Path, settings: ControllerSettings) -> tuple[list[float], float]:
    """Return when each trial of a study that scores in no time was told, and when it began."""
    times: list[float] = []
    began = time.perf_counter()
    run_study(
        SPACE,
        evaluate=instant,
        cost=cost_of,
        settings=settings,
        first=(),
        journal=journal,
        seed=0,
        on_trial=lambda number, candidate: times.append(time.perf_counter()),
    )
    return times, began


def flight(options: Options) -> Row:
    """Measure what proposals lose that are made without the last scores: the dominated area of a made-up problem."""
    seeds, trials = range(options.rounds), min(options.trials, 300)
    found: dict[str, dict[str, list[float]]] = {}
    for sampler in ("nsga2", "tpe"):
        found[sampler] = {}
        for count in (1, 4, 16, 64):
            settings = ControllerSettings(sampler=sampler, trials=trials, in_flight=count)
            found[sampler][str(count)] = [_dominated(_candidates(settings, seed)) for seed in seeds]
    rows = [
        (sampler, count, f"{statistics.fmean(areas):.4f}", " ".join(f"{area:.4f}" for area in areas))
        for sampler, by_count in found.items()
        for count, areas in by_count.items()
    ]
    print_rows(("sampler", "in flight", "dominated area", "by seed"), rows, f"{trials} trials, digits space")
    return {"trials": trials, "areas": found}


def _candidates(settings: ControllerSettings, seed: int) -> list[Candidate]:
    with tempfile.TemporaryDirectory(prefix="ftnas-scaling-") as folder:
        return run_study(
            SPACE, evaluate=instant, cost=cost_of, settings=settings, first=(), journal=Path(folder) / "journal.log",
            seed=seed, on_trial=lambda number, candidate: None,
        )  # fmt: skip


def _dominated(candidates: Sequence[Candidate]) -> float:
    """Return the area that accuracy against 2 million FLOPs dominates, as a share."""
    area, best = 0.0, 0.0
    for one in sorted(candidates, key=lambda c: (c.cost.flops, -c.score.faulty)):
        if one.score.faulty > best:
            area += (one.score.faulty - best) * max(0.0, 1 - one.cost.flops / 2e6)
            best = one.score.faulty
    return area


PARTS: Mapping[str, Callable[[Options], Row]] = {
    "workers": workers,
    "storages": storages,
    "controller": controller,
    "flight": flight,
    "memory": memory,
    "cost": cost,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How a search grows.")
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), help="what to measure (default: all)")
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="a finished search (runs/digits)")
    parser.add_argument("--trials", type=parse_count, default=None, help="of a study (workers: 60, others: 1000)")
    parser.add_argument("--rounds", type=parse_count, default=3, help="of what is repeated (default: 3)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where JSON is written")
    options = parser.parse_args()
    use_threads(1)
    for part in options.parts or PARTS:
        trials = options.trials or (60 if part == "workers" else 1000)
        found = PARTS[part](Options(options.run, trials, options.rounds))
        machine = describe_environment(reopen_run(options.run).config)
        about = {key: machine[key] for key in ("python", "torch", "optuna", "platform", "processor", "cores")}
        write_json(options.out / f"{part}.json", {"machine": about, "rounds": options.rounds, **found})


if __name__ == "__main__":
    main()
