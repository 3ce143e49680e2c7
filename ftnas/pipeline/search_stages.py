"""The first half of a run: the supernet, and the study that ranks candidates with its weights."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import torch

from ftnas.cost import Cost, genotype_cost
from ftnas.data import Dataset
from ftnas.errors import RunError
from ftnas.files import read_json, read_tensors, write_json, write_tensors, write_text
from ftnas.hardening.objective import Factor, network_vulnerability
from ftnas.networks import CellNetwork
from ftnas.pipeline.failures import Diverged, check_finite, noticing_divergence
from ftnas.pipeline.jobs import validation_split
from ftnas.pipeline.logbook import Logbook
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.run_folder import RunFolder
from ftnas.runtime import place, seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.candidates import Candidate
from ftnas.search.controller import run_study as propose_and_score
from ftnas.search.derivation import by_magnitude, by_perturbation
from ftnas.search.pareto import front, leaders
from ftnas.search.scoring import Scorer
from ftnas.search.supernet_training import SupernetEpoch, SupernetTrainer
from ftnas.space import Genotype


def final_cost(run: RunFolder, data: Dataset, genotype: Genotype) -> Cost:
    """Return the cost of ``genotype`` at its final size."""
    return genotype_cost(genotype, run.space, run.space.final, image_shape=data.image_shape, classes=data.classes)


def build_supernet(run: RunFolder, data: Dataset) -> tuple[CellNetwork, ArchitectureWeights]:
    """Return a freshly initialised supernet and its architecture weights, on the data's device."""
    with seeded("supernet", run.config.seed):
        supernet = CellNetwork(run.space, run.space.search, image_shape=data.image_shape, classes=data.classes)
    device = data.train_images.device
    return place(supernet, device), ArchitectureWeights(run.space).to(device)


def train_supernet(run: RunFolder, data: Dataset, logbook: Logbook) -> tuple[CellNetwork, ArchitectureWeights]:
    """Train the supernet, or read it where that is done.

    Raises:
        RunError: it diverged, so nothing that follows would mean anything.
    """
    supernet, architecture = build_supernet(run, data)
    both = torch.nn.ModuleDict({"supernet": supernet, "architecture": architecture})
    weights = run.file("supernet", "supernet.safetensors")
    if weights.exists():
        both.load_state_dict(read_tensors(weights)[0])
        return supernet, architecture
    settings = run.config.supernet
    shared, validation = validation_split(run.config, data)
    trainer = SupernetTrainer(
        supernet, architecture, settings=settings, faults=run.config.faults, key=f"supernet {run.config.seed}"
    )
    checkpoint = run.file("supernet", "checkpoint.safetensors")
    names = {"operators": run.space.operators, "quantization": [str(choice) for choice in run.space.quantization]}
    with progress_bar("supernet", settings.epochs) as advance:

        def on_epoch(record: SupernetEpoch) -> None:
            advance()
            check_finite(record.loss, record.architecture_loss)
            logbook.scalars(
                {f"supernet/{n}": v for n, v in asdict(record).items() if n != "epoch" and v is not None},
                step=record.epoch,
            )
            logbook.architecture_weights(architecture.probabilities(), step=record.epoch, names=names)

        try:
            with noticing_divergence(both):
                records = trainer.train(shared, validation, checkpoint=checkpoint, on_epoch=on_epoch)
        except Diverged:
            raise RunError(
                f"supernet.learning_rate: the supernet diverged in training at {settings.learning_rate}; "
                "choose a smaller one, and another folder with --run"
            ) from None
    write_json(run.file("supernet", "history.json"), [asdict(record) for record in records])
    write_json(run.file("supernet", "architecture_weights.json"), architecture.probabilities())
    write_tensors(weights, both.state_dict())
    checkpoint.unlink(missing_ok=True)
    return supernet, architecture


def make_scorer(
    run: RunFolder, data: Dataset, supernet: CellNetwork, *, images: int, chips: int, factor: Factor | None = None
) -> Scorer:
    """Return a scorer on the first ``images`` validation images (the split is shuffled and stratified).

    It calibrates on the configured number of training images, and on no more than it scores on. Where ``factor`` names
    one, a score holds this vulnerability factor.
    """
    shared, validation = validation_split(run.config, data)
    return Scorer(
        supernet,
        validation[0][:images],
        validation[1][:images],
        calibration=shared[0][: min(images, run.config.scoring.calibration_images)],
        faults=run.config.faults,
        chips=chips,
        study=f"study {run.config.seed}",
        vulnerability=None if factor is None else partial(network_vulnerability, factor),
    )


def run_study(
    run: RunFolder, data: Dataset, supernet: CellNetwork, architecture: ArchitectureWeights, logbook: Logbook
) -> list[Candidate]:
    """Rank candidates, or read them where that is done; leaders are scored again on fresh chips."""
    done = run.file("study", "leaders.json")
    if done.exists():
        return [Candidate.from_dict(row) for row in read_json(run.file("study", "candidates.json"))]
    scoring, settings = run.config.scoring, run.config.search
    factor = None if settings.vulnerability == "none" else settings.vulnerability
    scorer = make_scorer(run, data, supernet, images=scoring.images, chips=scoring.chips, factor=factor)
    first = _proposals_of_supernet(run, data, supernet, architecture)
    with progress_bar("candidates", settings.trials) as advance:

        def on_trial(number: int, candidate: Candidate | None) -> None:
            if candidate is not None:
                advance()
                logbook.scalars(
                    {"study/clean": candidate.score.clean, "study/faulty": candidate.score.faulty,
                     "study/megaflops": candidate.cost.flops / 1e6},
                    step=number,
                )  # fmt: skip

        candidates = propose_and_score(
            run.space,
            evaluate=scorer,
            cost=lambda genotype: final_cost(run, data, genotype),
            settings=settings,
            first=first,
            journal=run.file("study", "journal.log"),
            seed=run.config.seed,
            on_trial=on_trial,
        )
    write_candidates(run, candidates)
    _score_leaders(run, candidates, scorer)
    return candidates


def _proposals_of_supernet(
    run: RunFolder, data: Dataset, supernet: CellNetwork, architecture: ArchitectureWeights
) -> list[tuple[str, Genotype]]:
    """Return what the supernet itself proposes, kept in a file so that a resumed run has the same."""
    file = run.file("study", "proposals.json")
    if not file.exists():
        proposals = [("magnitude", by_magnitude(architecture))]
        scoring = run.config.scoring
        if scoring.perturbation_completions:
            scorer = make_scorer(run, data, supernet, images=scoring.perturbation_images, chips=1)
            completions = scoring.perturbation_completions
            options = len(run.space.operators) + len(run.space.quantization)
            edges = len(architecture.edges) * len(run.space.kinds)
            with progress_bar("perturbation", completions * options * edges) as advance:

                def faulty(genotype: Genotype) -> float:
                    advance()
                    return scorer(genotype).faulty

                derived = by_perturbation(
                    run.space, faulty, completions=completions, key=f"perturbation {run.config.seed}"
                )
            proposals.append(("perturbation", derived))
        write_json(file, [{"source": source, "genotype": g.to_dict()} for source, g in proposals])
    return [(row["source"], Genotype.from_dict(row["genotype"])) for row in read_json(file)]


def write_candidates(run: RunFolder, candidates: Sequence[Candidate]) -> None:
    """Write candidates as JSON and CSV, and the keys of the Pareto front."""
    rows = [candidate.to_dict() for candidate in candidates]
    write_json(run.file("study", "candidates.json"), rows)
    kept = [key for key in rows[0] if key not in ("genotype", "chips")]
    text = io.StringIO()
    writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(run.file("study", "candidates.csv"), text.getvalue())
    best = front(candidates, accuracy=lambda c: run.config.search.accuracy(c.score), cost=lambda c: c.cost.flops)
    write_json(run.file("study", "front.json"), [candidate.genotype.key for candidate in best])


def _score_leaders(run: RunFolder, candidates: Sequence[Candidate], scorer: Scorer) -> None:
    """Score the leaders on chips that played no part in choosing them, and write them best first."""
    settings, scoring = run.config.search, run.config.scoring
    chosen = leaders(
        candidates, scoring.leaders, accuracy=lambda c: settings.accuracy(c.score), cost=lambda c: c.cost.flops
    )
    rows = []
    with progress_bar("leaders on fresh chips", len(chosen)) as advance:
        for candidate in chosen:
            fresh = scorer.fresh(candidate.genotype, scoring.fresh_chips)
            rows.append(
                {
                    **candidate.to_dict(),
                    "fresh_faulty": fresh.faulty,
                    "fresh_chips": list(fresh.chips),
                    "fresh_objective": settings.accuracy(fresh),
                }
            )
            advance()
    rows.sort(key=lambda row: -row["fresh_objective"])
    write_json(run.file("study", "leaders.json"), rows)
