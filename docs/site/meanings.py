"""What keys mean where their section's docstring does not say; a test sees that one of both does."""

from __future__ import annotations

from collections.abc import Mapping

MEANINGS: Mapping[str, Mapping[str, str]] = {
    "DataSettings": {
        "name": "Which images; `digits` come with scikit-learn.",
    },
    "ScoringSettings": {
        "images": "Validation images that a candidate is scored on, the same for all.",
        "chips": "Chips that a candidate is scored on, the same for all.",
        "calibration_images": "Training images that renew batch-norm statistics and feature ranges before a score.",
        "fresh_chips": "Further chips on which the leaders are scored again.",
        "leaders": "How many are scored again.",
        "perturbation_images": "Images for deriving an architecture by perturbation.",
        "perturbation_completions": "Random cells around each option that is perturbed; 0 leaves the derivation out.",
    },
    "FinalistSettings": {
        "epochs": "Of a short training.",
        "chips": "Of its measurement, on validation images.",
    },
    "ChipSettings": {
        "chips": "Chips that each trained network is measured on.",
        "rates": "Rates of the first fault to measure beside the training's own; other faults change in proportion.",
    },
    "ComparisonSettings": {
        "baselines": "Published networks, trained and measured like the winner.",
        "sizes": "Their `own` size, or `scaled` to the winner's FLOPs.",
        "trainings": "How they are trained.",
        "numbers": "Quantisations of the baselines' convolutions and the hand-made cells' edges, each a net "
        "of its own.",
        "hand_made": "Hand-made cells of the same space.",
        "random_cells": "Random cells of the winner's FLOPs, trained fully.",
        "flops_tolerance": "How near to the winner's FLOPs those must come.",
    },
    "Recipe": {
        "seed": "Decides everything random: same seed, same result on one thread count.",
        "threads": "Torch threads of each process.",
        "device": "`auto` takes a GPU where there is one.",
        "data": "Which images.",
        "training": "How nets are trained.",
        "campaign": "How they are measured.",
    },
    "CompareConfig": {
        "nets": "Runs, trainings, exported folders, own models, baselines; the others are held against the first.",
        "workers": "Processes that train side by side.",
        "sizes": "Of baselines: their `own` size, or `scaled` to the first net's FLOPs.",
        "trainings": "How baselines, and classes of a Python file, are trained; each gives a net of its own.",
        "numbers": "Of baselines: quantisations of their convolutions, each a net of its own.",
        "faults": "What all nets are measured under, and trained with; the first is the one reported.",
    },
    "RunConfig": {
        "name": "Name of the run: letters, digits, `_`, `.` and `-`.",
        "workers": "Processes that train side by side; threads times workers should not exceed the cores.",
        "space": "A bundled search space by name, or the path of a YAML file, relative to this one.",
        "faults": "What fails, in text form; the first is the one reported.",
        "supernet": "How the supernet is trained.",
        "search": "The controller and its budget.",
        "scoring": "How a candidate is scored.",
        "finalists": "The short trainings that choose the winner.",
        "campaign": "How trained nets are measured.",
        "comparison": "What the winner is compared with.",
    },
    "ControllerSettings": {
        "controller": "`nni-evolution` needs `ftnas[nni]`; `--controller` sets it.",
        "sampler": "Of Optuna; `tpe` is the multivariate one.",
        "max_flops": "Limit on the final network, checked before anything is evaluated.",
        "max_parameters": "Likewise.",
    },
    "SupernetSettings": {
        "epochs": "Passes over the supernet's training images.",
        "warm_up": "Epochs with uniform paths, before architecture weights move.",
        "batch_size": "Images of a step.",
        "learning_rate": "Of the shared weights; falls to zero along a cosine.",
        "momentum": "Of gradient descent.",
        "weight_decay": "Likewise.",
        "augmentation": "How training images are varied.",
        "validation_share": "Share of the training images kept for architecture weights and scores.",
        "architecture_learning_rate": "Of the architecture weights (Adam).",
        "architecture_weight_decay": "Of the architecture weights.",
        "temperature": "Of the Gumbel softmax at the start.",
        "final_temperature": "And at the end.",
    },
    "TrainingSettings": {
        "epochs": "Passes over the training images.",
        "batch_size": "Images of a step.",
        "learning_rate": "At the start of the cosine.",
        "final_learning_rate": "At its end.",
        "momentum": "Of gradient descent.",
        "weight_decay": "Likewise.",
        "augmentation": "How training images are varied.",
    },
    "SearchSpace": {
        "name": "Letters, digits, `_` and `-`.",
        "description": "What it is for.",
        "operators": "What an edge may apply.",
        "inputs_per_node": "Edges that each node sums.",
        "stem": "The first layer.",
        "preprocess": "What brings a cell's inputs to its channels.",
    },
    "Sizes": {
        "channels": "Of the first cells; doubled in each reduction cell.",
        "cells": "Number of cells.",
        "reductions": "Indices of the reduction cells, from 0.",
    },
    "Stem": {
        "multiplier": "The stem has so many times the channels.",
    },
    "Preprocess": {
        "operator": "What it applies.",
        "affine": "Whether its batch norm has scale and shift.",
    },
    "RobustnessSettings": {
        "sparsity": "Terms that make activations sparse.",
        "lipschitz": "The term against log-normal weight variation.",
        "gradient_clip": "The largest norm of the gradient.",
    },
}
