"""Fault models as data: texts that read back, values that are checked."""

from __future__ import annotations

import pytest
from fault_strategies import models
from hypothesis import given
from hypothesis import strategies as st

from ftnas.errors import FaultError
from ftnas.faults import (
    FAULTS,
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    Fault,
    Listed,
    MacBitBias,
    StuckCell,
    parse_fault,
    parse_sweep,
    with_rate,
)
from ftnas.faults.models import duration

MODELS = models(st.floats(0, 1), st.floats(0, 1e300), bits=64)


@given(MODELS)
def test_a_fault_survives_its_text(fault: Fault) -> None:
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("features.mac_bit_bias:1e-4", MacBitBias(1e-4)),
        ("features.bit_bias:1e-3", BitBias(1e-3)),
        ("features.bit_flip:1e-3", BitFlip(1e-3, "features")),
        ("weights.bit_flip:1e-3", BitFlip(1e-3, "weights")),
        ("weights.stuck_cell:0.08", StuckCell(0.08, stuck_at_one=0.163, reach="layer_max")),
        ("weights.bitwise_stuck_cell:0.1", BitwiseStuckCell(0.1, stuck_at_one=0.163)),
        ("weights.stuck_cell:0.08:reach=range_end:scope=all", StuckCell(0.08, reach="range_end", scope="all")),
    ],
)
def test_a_text_means_its_fault(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize("name", FAULTS)
def test_the_name_in_the_text_is_the_fault_s_name(name: str) -> None:
    assert parse_fault(f"{name}:0.5").name == name


@pytest.mark.parametrize("name", FAULTS)
def test_underscores_of_a_name_may_be_left_out(name: str) -> None:
    target, model = name.split(".")
    assert parse_fault(f"{target}.{model.replace('_', '')}:0.5") == parse_fault(f"{name}:0.5")


def test_a_sweep_is_one_fault_at_several_rates() -> None:
    several = parse_sweep("weights.stuck_cell:1e-3, 1e-2,0.1:scope=all")
    assert several == tuple(StuckCell(rate, scope="all") for rate in (1e-3, 1e-2, 0.1))


def test_where_one_fault_is_meant_a_sweep_is_refused() -> None:
    with pytest.raises(FaultError, match="one rate is allowed here, got 2"):
        parse_fault("weights.bit_flip:1e-3,1e-2")


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_weights_last_and_those_of_features_come_and_go(name: str) -> None:
    assert duration(parse_fault(f"{name}:0")) == ("permanent" if name.startswith("weights") else "transient")


def test_listed_faults_have_no_rate_to_change() -> None:
    with pytest.raises(FaultError, match=r"weights\.listed has no rate to change"):
        with_rate(Listed(), 0.5)


@pytest.mark.parametrize("name", FAULTS)
def test_with_rate_changes_the_rate_only(name: str) -> None:
    assert with_rate(parse_fault(f"{name}:0.5:scope=all"), 0.25) == parse_fault(f"{name}:0.25:scope=all")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "weights.gamma_ray:0.1",
            "unknown fault 'weights.gamma_ray'; choose from weights.bit_flip, weights.stuck_bit",
        ),
        ("", "unknown fault ''; choose from"),
        ("weights.bit_flip", "has no rate; write it as weights.bit_flip:1e-3"),
        ("weights.bit_flip:much", "rate must be a number, got 'much'"),
        ("weights.bit_flip:1.5", "weights.bit_flip: rate must be a number in [0, 1], got 1.5"),
        ("weights.bit_flip:-1e-9", "rate must be a number in [0, 1], got -1e-09"),
        ("weights.bit_flip:nan", "rate must be a number in [0, 1], got nan"),
        ("weights.stuck_cell:0.1:stuck_at_one=2", "stuck_at_one must be a number in [0, 1], got 2.0"),
        ("weights.stuck_cell:0.1:reach=far", "reach must be one of layer_max, range_end, got 'far'"),
        ("weights.stuck_cell:0.1:colour=red", "unknown option 'colour=red'; choose from stuck_at_one, reach, scope"),
        ("weights.log_normal:-0.1", "weights.log_normal: sigma must be a number of 0 or more, got -0.1"),
        ("features.gaussian:inf", "features.gaussian: sigma must be a number of 0 or more, got inf"),
        ("features.gaussian:wide", "sigma must be a number, got 'wide'"),
        ("weights.bit_flip:0.1:adjacent=0", "adjacent must be a whole number from 1 to 64, got 0"),
        ("weights.bit_flip:0.1:adjacent=65", "adjacent must be a whole number from 1 to 64, got 65"),
        ("weights.bit_flip:0.1:adjacent=1.5", "adjacent must be a whole number from 1 to 64, got 1.5"),
        ("weights.bit_flip:0.1:adjacent=inf", "adjacent must be a whole number from 1 to 64, got inf"),
        ("weights.bit_flip:0.1:adjacent=nan", "adjacent must be a whole number from 1 to 64, got nan"),
        ("features.pattern:0.1:size=-1", "size must be a whole number from 1 to 64, got -1"),
        ("features.pattern:0.1:shape=ring", "shape must be one of point, row, channel, block, across_channels, got"),
        ("features.pattern:0.1:value=nan", "value must be one of in_range, out_of_range, zero, flip, got 'nan'"),
        ("weights.bit_flip:0.1:duration=brief", "duration must be one of transient, intermittent, permanent, got"),
        ("weights.bit_flip:0.1:activity=2", "activity must be a number in [0, 1], got 2"),
        ("weights.directed_flip:0.1:to_one=-1", "to_one must be a number in [0, 1], got -1"),
        ("weights.stuck_cell:0.1:duration=transient", "unknown option 'duration=transient'; choose from stuck_at_one"),
        ("features.mac_bit_bias:0.1:rounding=up", "rounding must be one of exact, published, got 'up'"),
        ("features.mac_bit_bias:0.1:bias=big", "bias must be one of any_bit, published, got 'big'"),
        ("weights.pattern:0.1", "unknown fault 'weights.pattern'"),
        ("weights.listed:1", "unknown fault 'weights.listed'"),
        ("features.bit_bias:0.1:scope=some", "scope must be one of convolutions, all, got 'some'"),
    ],
)
def test_a_wrong_text_is_one_line_that_says_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(FaultError) as error:
        parse_fault(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [1.1, -0.1, float("nan"), float("inf"), "0.1", True, None])
def test_an_impossible_rate_is_refused_in_python_too(rate: object) -> None:
    with pytest.raises(FaultError, match="rate must be a number"):
        MacBitBias(rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 1.0, "2", None, 0, 65])
def test_an_impossible_number_of_bits_is_refused_in_python_too(value: object) -> None:
    with pytest.raises(FaultError, match="adjacent must be a whole number from 1 to 64"):
        BitFlip(0.1, adjacent=value)  # type: ignore[arg-type]


def test_published_scopes_are_the_defaults() -> None:
    published = (MacBitBias(0), BitBias(0), StuckCell(0), BitwiseStuckCell(0))
    assert {fault.scope for fault in published} == {"convolutions"}
    assert BitFlip(0).scope == "all"
