"""Schedules and scheduled faults: read, followed, written back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnas.configuration import validate
from ftnas.errors import ConfigError
from ftnas.faults import BitFlip
from ftnas.training import TrainingSettings
from ftnas.training.faults import faults_at, read_fault
from ftnas.training.schedules import Schedule

numbers = st.floats(0, 1e6)
shares = st.floats(0, 0.999)
ramps = st.builds(lambda a, b, over: {"from": a, "to": b, "over": over}, numbers, numbers, st.floats(0.01, 1))
steps = st.dictionaries(shares, numbers, max_size=5).flatmap(lambda rest: numbers.map(lambda first: rest | {0: first}))
schedules = st.one_of(numbers, ramps, steps).map(Schedule.read)


@given(schedules)
def test_a_schedule_survives_json(schedule: Schedule) -> None:
    assert Schedule.read(json.loads(json.dumps(schedule.to_plain()))) == schedule


@given(schedules, st.floats(0, 1))
def test_a_schedule_stays_between_its_ends_and_keeps_its_points(schedule: Schedule, time: float) -> None:
    slack = 1e-9 * schedule.highest
    assert schedule.lowest - slack <= schedule.at(time) <= schedule.highest + slack
    assert all(schedule.at(at) == pytest.approx(value) for at, value in schedule.points)


def test_a_ramp_goes_straight_and_then_holds() -> None:
    ramp = Schedule.read({"from": 0, "to": 0.2, "over": 0.5})
    assert [ramp.at(time) for time in (0, 0.25, 0.5, 0.9, 1)] == pytest.approx([0, 0.1, 0.2, 0.2, 0.2])


def test_steps_hold_until_the_next() -> None:
    warm_up = Schedule.read({0: 0, 0.25: 0.2, 0.5: 0.1})
    assert [warm_up.at(time) for time in (0, 0.2, 0.25, 0.49, 0.5, 1)] == [0, 0, 0.2, 0.2, 0.1, 0.1]


@pytest.mark.parametrize(
    "text", ["weights.bit_flip:0.01", "weights.stuck_bit:0.02:stuck_at_one=1", "weights.bitflip:0.01"]
)
def test_a_fault_is_its_text_or_a_mapping_to_its_rate(text: str) -> None:
    name, _, rest = text.partition(":")
    rate, _, options = rest.partition(":")
    mapped = read_fault({f"{name}:{options}" if options else name: float(rate)})
    assert mapped == read_fault(text)
    ramp = read_fault({f"{name}:{options}" if options else name: {"from": 0, "to": float(rate)}})
    assert read_fault(ramp.to_plain()) == ramp
    assert ramp.fault == mapped.fault


def test_a_scheduled_fault_has_the_rate_of_its_time() -> None:
    ramp = read_fault({"weights.bit_flip": {"from": 0, "to": 0.02}})
    constant = BitFlip(0.5, target="features")
    assert faults_at([ramp, constant], 0.25) == [BitFlip(0.005, target="weights"), constant]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rho": "much"}, "rho: a number, {from: 0, to: 0.2, over: 0.5} (a ramp), or {0: 0, 0.25: 0.2} (steps)"),
        ({"rho": {"from": 0}}, "rho: a number, {from: 0"),
        ({"rho": {"from": 0, "to": 1, "over": 2}}, "rho: over is a share of the training, more than 0 and at most 1"),
        ({"rho": {0.5: 1}}, "rho: steps begin at 0 and are shares of the training below 1, got {0.5: 1}"),
        ({"rho": {0: 1, 5: 2}}, "rho: steps begin at 0"),
        ({"rho": -0.1}, "rho: values must be 0 or more, got -0.1"),
        ({"faulty_share": 1.5, "objective": "ftt"}, "faulty_share: values must be 0 to 1, got 1.5"),
        ({"rho": 0.1, "objective": "ftt"}, "rho: is for the objectives sam and saq, not for ftt"),
        ({"rho": 0.1, "relative_rho": 0.1}, "rho: give it or relative_rho, not both"),
        ({"loss_gate": 1.0}, "loss_gate: is for the objectives randbet and worst_bits"),
        ({"objective": "qat", "faults": ["weights.bit_flip:0.1"]}, "faults: qat trains without any"),
        ({"clip": 0}, "clip: "),
        ({"clip": "some"}, "clip"),
        ({"objective": "flat"}, "objective: Input should be 'qat', 'ftt'"),
        ({"sparsity": {"l0": 1}}, "sparsity.l0: unknown key; choose from hoyer, l1"),
        ({"lipschitz": {"sigma": 0}}, "lipschitz.sigma: "),
        ({"faults": ["weights.bit_flop:0.1"]}, "faults.0: unknown fault 'weights.bit_flop'"),
        ({"faults": [{"weights.bit_flip": 2}]}, "faults.0: weights.bit_flip: rate must be"),
        ({"faults": [{"weights.bit_flip": 0.1, "weights.random_value": 0.1}]}, "faults.0: a fault is weights.bit_flip"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(TrainingSettings, {"objective": "saq"} | given, source="training")
    assert words in str(error.value)


def test_a_configuration_with_schedules_survives_json() -> None:
    given = {
        "objective": "saq",
        "rho": {0: 0, 0.2: 0.3},
        "faults": [{"weights.bit_flip": {"from": 0, "to": 0.01, "over": 0.5}}, "features.bit_flip:1e-3"],
        "faulty_share": {"from": 0, "to": 0.5},
        "sparsity": {"hoyer": 1e-4},
        "clip": 0.2,
    }
    settings = TrainingSettings.model_validate(given)
    assert TrainingSettings.model_validate_json(settings.model_dump_json()) == settings
