"""What a reader of a run must know: a study cut short, collapsed cells, trainings that failed."""

from __future__ import annotations

from collections.abc import Sequence

from ftnas.files import read_json
from ftnas.pipeline.run_folder import RunFolder
from ftnas.search.candidates import Candidate
from ftnas.search.settings import shortfall
from ftnas.space import Genotype

# A cell of which more than this share of edges holds no weights is reported as collapsed.
COLLAPSE_SHARE = 0.5
WEIGHTLESS = ("none", "skip_connect")

# Whose cell a candidate is, by the source that proposed it; what the sampler drew says nothing of the supernet.
PROPOSALS = {
    "magnitude": "the architecture weights' proposal by magnitude",
    "perturbation": "the supernet's proposal by perturbation",
}


def search_warnings(run: RunFolder, candidates: Sequence[Candidate], winner: Genotype) -> list[str]:
    """Return what a reader of the search must know: too few candidates, a collapsed supernet or winner."""
    text = shortfall(candidates, run.config.search)
    return [*([text] if text else []), *_collapse_warnings(run, candidates, winner)]


def _collapse_warnings(run: RunFolder, candidates: Sequence[Candidate], winner: Genotype) -> list[str]:
    """Return a warning for each kind of cell in which edges without weights took over, naming all whose cell it is."""
    derived = [(PROPOSALS[c.source], c.genotype) for c in candidates if c.source in PROPOSALS]
    owners: dict[str, list[str]] = {}
    genotypes: dict[str, Genotype] = {}
    for owner, genotype in [*derived, ("the winner", winner)]:
        owners.setdefault(genotype.key, []).append(owner)
        genotypes[genotype.key] = genotype
    return [
        f"the {kind} cell of {' and of '.join(owners[key])} ({key}) has collapsed: "
        f"{share:.0%} of its edges are skip_connect or none"
        for key, genotype in genotypes.items()
        for kind in run.space.kinds
        if (share := _weightless_share(genotype, kind)) > COLLAPSE_SHARE
    ]


def _weightless_share(genotype: Genotype, kind: str) -> float:
    edges = [edge for node in genotype.cell(kind) for edge in node]
    return sum(edge.operator in WEIGHTLESS for edge in edges) / len(edges)


def training_warnings(run: RunFolder) -> list[str]:
    """Return a warning for each net that its training from scratch left no better than guessing."""
    results = map(read_json, sorted(run.file("trainings").glob("*/result.json")))
    return [
        f"{r['label']} (trainings/{r['name']}) {r['failure']}: its accuracy is that of guessing"
        for r in results
        if r.get("failure")
    ]
