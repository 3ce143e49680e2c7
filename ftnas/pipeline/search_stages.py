"""The first half of a run: the supernet, and the study that ranks candidates with its weights."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftnas.campaign.subject import tensors_hash
from ftnas.cost import Cost, genotype_cost
from ftnas.data import Dataset
from ftnas.distributed import first_does
from ftnas.errors import RunError
from ftnas.files import read_json, read_tensors, write_json, write_tensors, write_text
from ftnas.networks import CellNetwork
from ftnas.pipeline.answers import keeping_answers
from ftnas.pipeline.config import RunConfig
from ftnas.pipeline.failures import Diverged, check_finite, noticing_divergence
from ftnas.pipeline.jobs import validation_split
from ftnas.pipeline.logbook import Logbook
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.run_folder import RunFolder
from ftnas.pipeline.shared_weights import WEIGHTS, build_supernet, make_scorer, study_scorer, weights_digest
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.candidates import Candidate, Score, read_candidates
from ftnas.search.derivation import by_magnitude, by_perturbation
from ftnas.search.order import read_order
from ftnas.search.pareto import front, leaders
from ftnas.search.scoring import Scorer
from ftnas.search.supernet_training import SupernetEpoch, SupernetTrainer
from ftnas.space import Genotype, SearchSpace
from ftnas.training import remove_checkpoint

if TYPE_CHECKING:
    from ftnas.pipeline.scoring_team import Team

LEADERS = ("study", "leaders.json")  # what a study writes when all else of it is there


def final_cost(run: RunFolder, data: Dataset, genotype: Genotype) -> Cost:
    """Return the cost of ``genotype`` at its final size."""
    return genotype_cost(genotype, run.space, run.space.final, image_shape=data.image_shape, classes=data.classes)


def train_supernet(run: RunFolder, data: Dataset, logbook: Logbook | None) -> tuple[CellNetwork, ArchitectureWeights]:
    """Train the supernet, or read it where that is done. Processes that train together have one logbook and one folder.

    Raises:
        RunError: it diverged, so nothing that follows would mean anything.
    """
    supernet, architecture = build_supernet(run, data)
    both = torch.nn.ModuleDict({"supernet": supernet, "architecture": architecture})
    weights = run.file(*WEIGHTS)
    if first_does(weights.exists):
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
            if logbook is None:
                return
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

    def write() -> None:
        write_json(run.file("supernet", "history.json"), [asdict(record) for record in records])
        write_json(run.file("supernet", "architecture_weights.json"), architecture.probabilities())
        write_tensors(weights, both.state_dict())
        remove_checkpoint(checkpoint)

    first_does(write)
    return supernet, architecture


@dataclass(frozen=True)
class StudyRequest:
    """What is asked of a study beside its configuration.

    Attributes:
        storage: the URL of a storage in which workers from elsewhere find its candidates.
        replay: a file, or a run folder, with an order of proposals to repeat.
    """

    storage: str | None = None
    replay: Path | None = None

    def check(self, config: RunConfig, space: SearchSpace) -> None:
        """Refuse, before any work, what cannot be done.

        Raises:
            RunError: the storage does not answer, or there is no such order of proposals.
        """
        if self.storage is not None:
            from ftnas.search.storages import close_storage, open_storage

            close_storage(open_storage(self.storage))
        if self.replay is not None:
            read_order(self.replay, space)
            if config.search.controller != "optuna":
                raise RunError(f"--replay: needs the controller optuna, got {config.search.controller}")


def run_study(
    run: RunFolder,
    data: Dataset,
    supernet: CellNetwork,
    architecture: ArchitectureWeights,
    logbook: Logbook,
    request: StudyRequest,
) -> list[Candidate]:
    """Rank candidates, or read them where that is done; leaders are scored again on fresh chips."""
    done = run.file(*LEADERS)
    if done.exists():
        return read_candidates(run.file("study", "candidates.json"))
    # Here, so that who goes on with a finished study does not wait for Optuna.
    from ftnas.pipeline.scoring_team import scoring_team
    from ftnas.search.controller import run_study as propose_and_score

    settings = run.config.search
    scorer = study_scorer(run, data, supernet)
    replay = None if request.replay is None else read_order(request.replay, run.space)
    with scoring_team(run, request.storage) as team:
        first = _proposals_of_supernet(run, data, supernet, architecture)
        with progress_bar("candidates", settings.trials) as advance:

            def on_trial(number: int, candidate: Candidate | None) -> None:
                if candidate is not None:
                    advance()
                    _log_candidate(logbook, number, candidate)

            candidates = propose_and_score(
                run.space,
                evaluate=scorer if team is None else team.score,
                cost=lambda genotype: final_cost(run, data, genotype),
                settings=settings,
                first=first,
                journal=run.file("study", "journal.log"),
                seed=run.config.seed,
                on_trial=on_trial,
                sharing=team,
                replay=replay,
            )
        write_candidates(run, candidates)
        _score_leaders(run, candidates, scorer, team)
    return candidates


def _log_candidate(logbook: Logbook, number: int, candidate: Candidate) -> None:
    score, cost = candidate.score, candidate.cost
    logbook.scalars(
        {"study/clean": score.clean, "study/faulty": score.faulty, "study/megaflops": cost.flops / 1e6}, step=number
    )


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
            kept = keeping_answers(run.file("study", "perturbation.jsonl"), {"net": tensors_hash(supernet)})
            with progress_bar("perturbation", completions * options * edges) as advance, kept as answers:

                def faulty(genotype: Genotype) -> float:
                    advance()
                    return float(answers.of(genotype.form, lambda: scorer(genotype).faulty))

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


def _score_leaders(run: RunFolder, candidates: Sequence[Candidate], scorer: Scorer, team: Team | None) -> None:
    """Score the leaders on chips that played no part in choosing them, and write them best first."""
    settings, scoring = run.config.search, run.config.scoring
    chosen = leaders(
        candidates, scoring.leaders, accuracy=lambda c: settings.accuracy(c.score), cost=lambda c: c.cost.flops
    )
    chips = range(scoring.chips, scoring.chips + scoring.fresh_chips)
    rows = []
    kept = keeping_answers(run.file("study", "leaders.jsonl"), {"weights": weights_digest(run)})
    with progress_bar("leaders on fresh chips", len(chosen)) as advance, kept as answers:
        missing = [c.genotype for c in chosen if c.genotype.form not in answers]
        alone = (scorer.fresh(genotype, scoring.fresh_chips) for genotype in missing)
        scores = alone if team is None else team.scores(missing, chips)
        for candidate in chosen:
            fresh = Score.from_dict(answers.of(candidate.genotype.form, lambda: next(scores).to_dict()))
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
