"""The supernet of a run, and scorers of candidates with its weights."""

from __future__ import annotations

from functools import partial

import torch

from ftnas.data import Dataset
from ftnas.files import read_tensors
from ftnas.hardening.objective import Factor, network_vulnerability
from ftnas.networks import CellNetwork
from ftnas.pipeline.jobs import validation_split
from ftnas.pipeline.run_folder import RunFolder
from ftnas.runtime import place, seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.scoring import Scorer
from ftnas.search.work import digest

WEIGHTS = ("supernet", "supernet.safetensors")


def build_supernet(run: RunFolder, data: Dataset) -> tuple[CellNetwork, ArchitectureWeights]:
    """Return a freshly initialised supernet and its architecture weights, on the data's device."""
    with seeded("supernet", run.config.seed):
        supernet = CellNetwork(run.space, run.space.search, image_shape=data.image_shape, classes=data.classes)
    device = data.train_images.device
    return place(supernet, device), ArchitectureWeights(run.space).to(device)


def read_supernet(run: RunFolder, data: Dataset) -> CellNetwork:
    """Return the trained supernet of ``run``.

    Raises:
        RunError: the file is missing or damaged.
    """
    supernet, architecture = build_supernet(run, data)
    both = torch.nn.ModuleDict({"supernet": supernet, "architecture": architecture})
    both.load_state_dict(read_tensors(run.file(*WEIGHTS))[0])
    return supernet


def weights_digest(run: RunFolder) -> str:
    """Return a digest of the trained weights of ``run``, on which every score depends."""
    return digest(run.file(*WEIGHTS).read_bytes())


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


def study_scorer(run: RunFolder, data: Dataset, supernet: CellNetwork) -> Scorer:
    """Return the scorer of the study's candidates: the same in every process."""
    scoring, named = run.config.scoring, run.config.search.vulnerability
    factor = None if named == "none" else named
    return make_scorer(run, data, supernet, images=scoring.images, chips=scoring.chips, factor=factor)
