"""Short trainings: they choose the winner among the leaders, and show how far supernet scores can be trusted."""

from __future__ import annotations

from typing import Any

from ftnas.data import Dataset
from ftnas.files import read_json, write_json
from ftnas.pipeline.answers import Answers, keeping_answers
from ftnas.pipeline.cells import cell_job, draw_cells
from ftnas.pipeline.jobs import Result
from ftnas.pipeline.run_folder import RunFolder
from ftnas.pipeline.search_stages import final_cost
from ftnas.pipeline.shared_weights import weights_digest
from ftnas.pipeline.trained import read_job
from ftnas.pipeline.workers import run_jobs
from ftnas.search.candidates import Score
from ftnas.search.rank_correlation import kendall, mean_difference
from ftnas.search.scoring import Scorer
from ftnas.space import Genotype
from ftnas.untrusted import plain_name

# What is correlated: (before, after a training of its own).
TAUS = {
    "tau_clean": ("supernet_clean", "final_clean"),
    "tau_faulty": ("supernet_faulty", "final_faulty"),
    "tau_flops": ("flops", "final_faulty"),
    "tau_parameters": ("parameters", "final_faulty"),
}


def choose_winner(run: RunFolder, data: Dataset) -> Genotype:
    """Train the best leaders and some random cells shortly; the best leader on validation images is the winner."""
    rows = read_json(run.file("study", "leaders.json"))[: run.config.finalists.top]
    tops = [Genotype.from_dict(row["genotype"]) for row in rows]
    randoms = _random_cells(run, data, run.config.finalists.random, taken={g.key for g in tops})
    jobs = [
        *(cell_job(run, f"top{i}-{g.key}", f"leader {i}", g, family="finalist", part="split")
          for i, g in enumerate(tops, start=1)),
        *(cell_job(run, f"random{i}-{g.key}", f"random {i}", g, family="random", part="split")
          for i, g in enumerate(randoms, start=1)),
    ]  # fmt: skip
    results = run_jobs(run, jobs, title="finalists", workers=run.config.workers)
    best = max(range(len(tops)), key=lambda index: _objective(run, results[index]))
    return tops[best]


def _objective(run: RunFolder, result: Result) -> float:
    settings, faulty = run.config.search, float(result["rates"][0]["mean"])
    if settings.objective == "faulty":
        return faulty
    return (1 - settings.faulty_share) * float(result["clean"]) + settings.faulty_share * faulty


def _random_cells(run: RunFolder, data: Dataset, count: int, *, taken: set[str]) -> list[Genotype]:
    """Return ``count`` distinct random cells within the limits, not among ``taken``."""
    limits = run.config.search.limits
    return draw_cells(
        run, count, taken=taken, key="finalists", fits=lambda g: not limits.violated_by(final_cost(run, data, g))
    )


def rank(run: RunFolder, scorer: Scorer) -> dict[str, Any]:
    """Compare supernet scores with short trainings: Kendall's tau with intervals, and the gain over random cells."""
    file = run.file("ranking.json")
    if file.exists():
        return dict(read_json(file))
    paths = [path for kind in ("top", "random") for path in run.file("trainings").glob(f"{kind}*/result.json")]
    short = [read_json(path) for path in sorted(paths)]
    with keeping_answers(run.file("ranking.jsonl"), {"weights": weights_digest(run)}) as answers:
        points = [_ranked_net(run, scorer, result, answers) for result in short]

    def tau(score: str, truth: str) -> dict[str, Any]:
        return kendall([p[score] for p in points], [p[truth] for p in points], seed=run.config.seed).to_dict()

    def faulty(family: str) -> list[float]:
        return [r["rates"][0]["mean"] for r in short if r["family"] == family]

    ranking: dict[str, Any] = {"n": len(points), "points": points}
    if len(points) > 2:
        taus = {name: tau(*pair) for name, pair in TAUS.items()}
        # Where one side is all equal there is no correlation to report.
        ranking |= {name: estimate for name, estimate in taus.items() if estimate["value"] is not None}
    if faulty("random"):
        gain = mean_difference(faulty("finalist"), faulty("random"), seed=run.config.seed)
        ranking["gain_over_random"] = gain.to_dict()
    write_json(file, ranking)
    return ranking


def _ranked_net(run: RunFolder, scorer: Scorer, result: Result, answers: Answers) -> dict[str, Any]:
    home = run.file("trainings", plain_name(result["name"], run.file("trainings")))
    genotype = Genotype.from_dict(read_job(home)["model"].get("genotype"))
    score = Score.from_dict(answers.of(genotype.form, lambda: scorer(genotype).to_dict()))
    return {
        "key": result["key"],
        "family": result["family"],
        "supernet_clean": score.clean,
        "supernet_faulty": score.faulty,
        "final_clean": result["clean"],
        "final_faulty": result["rates"][0]["mean"],
        "flops": result["flops"],
        "parameters": result["parameters"],
    }
