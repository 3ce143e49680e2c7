"""Limits that no architecture keeps are found before anything is trained, and end a study that meets them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from small_nets import digits

from ftnas.cost import Cost, cheapest_costs, genotype_cost
from ftnas.errors import SpaceError
from ftnas.pipeline.limits import check_limits
from ftnas.quantization import Quantization
from ftnas.search.candidates import Score
from ftnas.search.settings import ControllerSettings
from ftnas.space import Genotype, SearchSpace, Sizes

SIZES = Sizes(channels=4, cells=5, reductions=(1, 3))
# A dense convolution costs less than a separable one where channels are few and maps large, and more further on.
TORN = SearchSpace(
    name="torn",
    operators=("relu_conv_bn_3x3", "sep_conv_5x5"),
    quantization=(Quantization(),),
    nodes=1,
    inputs_per_node=1,
    search=SIZES,
    final=SIZES,
)


def cost(genotype: Genotype) -> Cost:
    return genotype_cost(genotype, TORN, TORN.final, image_shape=(1, 8, 8))


COSTS = [cost(genotype) for genotype in TORN.enumerate()]
FLOPS, PARAMETERS = min(c.flops for c in COSTS), min(c.parameters for c in COSTS)
SMALLEST_OF_CHEAPEST = min(c.parameters for c in COSTS if c.flops == FLOPS)
BOTH = {"max_flops": FLOPS, "max_parameters": PARAMETERS}


def settings_for(**limits: Any) -> ControllerSettings:
    return ControllerSettings.model_validate({"trials": 3, "sampler": "random", **limits})


def test_the_space_has_no_architecture_that_is_both_cheapest_and_smallest() -> None:
    assert min(c.flops for c in COSTS if c.parameters == PARAMETERS) > FLOPS
    assert cheapest_costs(TORN, TORN.final, image_shape=(1, 8, 8))[0] == (FLOPS, SMALLEST_OF_CHEAPEST)


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_flops": FLOPS}, {"max_parameters": PARAMETERS},
     {"max_flops": FLOPS, "max_parameters": SMALLEST_OF_CHEAPEST}],
)  # fmt: skip
def test_limits_that_one_architecture_just_keeps_are_allowed(limits: dict[str, int]) -> None:
    check_limits(TORN, settings_for(**limits), digits())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_flops": FLOPS - 1},
            f"search.max_flops: {FLOPS - 1} is below the cheapest architecture of space torn, which has {FLOPS} FLOPs",
        ),
        (
            {"max_parameters": PARAMETERS - 1},
            f"search.max_parameters: {PARAMETERS - 1} is below the smallest architecture of space torn, "
            f"which has {PARAMETERS} parameters",
        ),
        (
            BOTH,
            f"search.max_parameters: {PARAMETERS} is below the smallest architecture of space torn "
            f"within search.max_flops: {FLOPS}, which has {SMALLEST_OF_CHEAPEST} parameters",
        ),
    ],
)
def test_limits_that_no_architecture_keeps_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(SpaceError, match=rf"\A{re.escape(message)}\Z"):
        check_limits(TORN, settings_for(**limits), digits())


@pytest.mark.parametrize("controller", ["optuna", "nni-evolution"])
def test_a_study_whose_limits_exclude_each_other_ends_with_one_line(controller: str, tmp_path: Path) -> None:
    if controller == "nni-evolution":
        pytest.importorskip("nni")
    from ftnas.search.controller import run_study

    def evaluate(genotype: Genotype) -> Score:
        raise AssertionError("nothing within the limits can be scored")

    told = f"space torn: no architecture was found within max_flops={FLOPS}, max_parameters={PARAMETERS}; the cheapest"
    with pytest.raises(SpaceError, match=rf"\A{re.escape(told)} proposal has \d+ FLOPs and \d+ parameters\Z"):
        run_study(
            TORN,
            evaluate=evaluate,
            cost=cost,
            settings=settings_for(controller=controller, **BOTH),
            first=(),
            journal=tmp_path / "journal.log",
            seed=0,
            on_trial=lambda number, candidate: None,
        )
