"""Fault models as data: texts that read back, values that are checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnas.errors import FaultError
from ftnas.faults import (
    FAULTS,
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    Fault,
    MacBitBias,
    StuckCell,
    parse_fault,
    with_rate,
)

RATES = st.floats(0, 1)
SCOPES = st.sampled_from(["convolutions", "all"])
MODELS: st.SearchStrategy[Fault] = st.one_of(
    st.builds(BitFlip, RATES, st.sampled_from(["weights", "features"]), SCOPES),
    st.builds(BitBias, RATES, SCOPES),
    st.builds(MacBitBias, RATES, SCOPES),
    st.builds(StuckCell, RATES, RATES, st.sampled_from(["layer_max", "range_end"]), SCOPES),
    st.builds(BitwiseStuckCell, RATES, RATES, SCOPES),
)


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
def test_with_rate_changes_the_rate_only(name: str) -> None:
    assert with_rate(parse_fault(f"{name}:0.5:scope=all"), 0.25) == parse_fault(f"{name}:0.25:scope=all")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "weights.gamma_ray:0.1",
            "unknown fault 'weights.gamma_ray'; choose from weights.bit_flip, weights.stuck_cell",
        ),
        ("", "unknown fault ''; choose from"),
        ("weights.bit_flip", "has no rate; write it as weights.bit_flip:1e-3"),
        ("weights.bit_flip:much", "rate must be a number in [0, 1], got 'much'"),
        ("weights.bit_flip:1.5", "weights.bit_flip: rate must be a number in [0, 1], got 1.5"),
        ("weights.bit_flip:-1e-9", "rate must be a number in [0, 1], got -1e-09"),
        ("weights.bit_flip:nan", "rate must be a number in [0, 1], got nan"),
        ("weights.stuck_cell:0.1:stuck_at_one=2", "stuck_at_one must be a number in [0, 1], got 2.0"),
        ("weights.stuck_cell:0.1:reach=far", "reach must be one of layer_max, range_end, got 'far'"),
        ("weights.stuck_cell:0.1:colour=red", "unknown option 'colour=red'; choose from stuck_at_one, reach, scope"),
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


def test_published_scopes_are_the_defaults() -> None:
    published = (MacBitBias(0), BitBias(0), StuckCell(0), BitwiseStuckCell(0))
    assert {fault.scope for fault in published} == {"convolutions"}
    assert BitFlip(0).scope == "all"
