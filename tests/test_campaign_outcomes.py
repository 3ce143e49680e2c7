"""Outcomes of images: each is one of four, and every share says what it is a share of."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from ftnas.campaign.outcomes import DENOMINATORS, MEANINGS, Outcomes, critical, outcomes
from ftnas.errors import CampaignError

Logits = NDArray[np.float32]
VALUES = st.sampled_from([-1.0, -0.0, 0.0, 1.0, 2.0, 3.0])
BROKEN = st.sampled_from([-1.0, 0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])


def logits(elements: st.SearchStrategy[float], classes: int = 7) -> st.SearchStrategy[Logits]:
    return arrays.arrays(np.float32, (5, classes), elements=elements)


def row(*values: float) -> Logits:
    return np.array([values], np.float32)


@given(logits(VALUES), logits(BROKEN), st.lists(st.integers(0, 6), min_size=5, max_size=5))
def test_counts_are_those_of_a_plain_loop(golden: Logits, faulty: Logits, labels: list[int]) -> None:
    found = outcomes(golden, faulty, np.array(labels))
    kinds: list[str] = []
    beyond = after = 0
    for clean, dirty, label in zip(golden, faulty, labels, strict=True):
        order = sorted(range(7), key=lambda k, clean=clean: (-clean[k], k))
        if not np.isfinite(dirty).all():
            kinds.append("due")
            continue
        first = int(np.argmax(dirty))
        after += first == label
        beyond += first not in order[:5]
        if clean.tobytes() == dirty.tobytes():
            kinds.append("masked")
        else:
            kinds.append("benign" if first == order[0] else "sdc1")
    assert {name: getattr(found, name) for name in ("masked", "benign", "sdc1", "due")} == {
        name: kinds.count(name) for name in ("masked", "benign", "sdc1", "due")
    }
    assert (found.sdc5, found.correct_after) == (beyond, after)
    assert found.correct_before == int((golden.argmax(1) == np.array(labels)).sum())
    assert found.images == found.masked + found.benign + found.sdc1 + found.due == 5


@given(logits(VALUES), logits(BROKEN), st.integers(0, 5))
def test_batches_add_up_to_the_whole(golden: Logits, faulty: Logits, cut: int) -> None:
    labels = np.arange(5)
    parts = [outcomes(golden[half], faulty[half], labels[half]) for half in (slice(cut), slice(cut, None))]
    assert parts[0] + parts[1] == outcomes(golden, faulty, labels)


def test_another_zero_is_not_masked() -> None:
    assert outcomes(row(0.0, 1.0), row(-0.0, 1.0)).benign == 1
    assert outcomes(row(0.0, 1.0), row(0.0, 1.0)).masked == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_due_and_never_right(broken: float) -> None:
    # The first answer would even be the right one: NaN and infinity win the argmax.
    found = outcomes(row(3.0, 0.0), row(broken, 0.0), np.array([0]))
    assert (found.due, found.sdc1, found.benign, found.masked) == (1, 0, 0, 0)
    assert (found.correct_before, found.correct_after, found.accuracy_drop) == (1, 0, 1)
    assert found.changed == 1


def test_an_answer_s_confidence_may_drift_while_it_stays_the_first() -> None:
    golden = row(*np.log([0.5, 0.3, 0.2]))
    for share, expected in (
        (0.44, (1, 0)),
        (0.46, (0, 0)),
        (0.56, (1, 0)),
        (0.54, (0, 0)),
        (0.39, (1, 1)),
        (0.61, (1, 1)),
    ):
        found = outcomes(golden, row(*np.log([share, (1 - share) * 0.6, (1 - share) * 0.4])))
        assert (found.sdc10_percent, found.sdc20_percent) == expected
        assert found.benign == 1
    moved = outcomes(golden, golden + np.float32(40.0))  # all logits alike: the softmax is what it was
    assert (moved.benign, moved.sdc10_percent) == (1, 0)


def test_drift_is_asked_of_finite_logits_only() -> None:
    found = outcomes(row(3.0, 0.0), row(np.nan, 0.0))
    assert (found.due, found.sdc10_percent, found.sdc20_percent) == (1, 0, 0)


def test_huge_logits_have_a_confidence() -> None:
    found = outcomes(row(1e4, 0.0), row(-3e38, 3e38))
    assert (found.sdc1, found.sdc10_percent, found.sdc20_percent) == (1, 1, 1)


def test_sdc5_needs_more_than_five_classes() -> None:
    assert outcomes(np.eye(5, dtype=np.float32), np.eye(5, dtype=np.float32)[::-1]).sdc5 is None
    golden = row(5, 4, 3, 2, 1, 0)
    assert outcomes(golden, row(0, 0, 0, 0, 9, 0)).sdc5 == 0
    assert outcomes(golden, row(0, 0, 0, 0, 0, 9)).sdc5 == 1


def test_faults_that_help_lower_the_drop_below_zero() -> None:
    found = outcomes(row(1, 0), row(0, 1), np.array([1]))
    assert found.accuracy_drop == -1
    assert found.share("accuracy_drop") == -1


def test_without_labels_nothing_is_said_of_accuracy() -> None:
    found = outcomes(row(1, 0), row(0, 1))
    assert (found.correct_before, found.correct_after, found.accuracy_drop) == (None, None, None)
    assert found.share("accuracy_drop") is None
    assert (found + found).correct_after is None


@pytest.mark.parametrize("name", [name for name, of in DENOMINATORS.items() if of == "all images"])
def test_every_share_of_images_has_a_meaning_and_is_computed(name: str) -> None:
    golden, faulty = np.eye(7, dtype=np.float32)[[0, 1, 2, 3]], np.eye(7, dtype=np.float32)[[0, 1, 6, 3]]
    share = outcomes(golden, faulty, np.array([0, 1, 2, 3])).share(name)
    assert share is not None and -1 <= share <= 1
    assert MEANINGS[name]


def test_each_name_has_one_meaning_and_one_denominator() -> None:
    assert DENOMINATORS.keys() == MEANINGS.keys()


def test_four_outcomes_share_all_images_between_them() -> None:
    found = Outcomes(images=8, masked=3, benign=2, sdc1=2, due=1)
    assert sum(found.share(name) or 0 for name in ("masked", "benign", "sdc1", "due")) == 1
    assert found.share("changed") == 3 / 8


@given(st.integers(1, 1000), st.integers(1, 100))
def test_a_fault_is_critical_from_exactly_its_share_on(images: int, percent: int) -> None:
    least = -(-images * percent // 100)
    for changed, expected in ((least - 1, False), (least, True)):
        due = changed // 2
        found = Outcomes(images=images, masked=images - changed, benign=0, sdc1=changed - due, due=due)
        assert critical(found, percent / 100) is expected


def test_outcomes_are_plain_data() -> None:
    found = outcomes(row(1, 0), row(0, 1), np.array([1]))
    assert Outcomes(**json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_format_is_compared_bit_by_bit(dtype: type) -> None:
    golden = np.array([[1.0, 0.5]], dtype)
    assert outcomes(golden, np.nextafter(golden, dtype(2))).benign == 1


def test_logits_that_do_not_lie_in_order_are_compared_too() -> None:
    golden = np.asfortranarray(np.random.default_rng(0).normal(size=(6, 4)))
    assert outcomes(golden, golden.copy(order="C")).masked == 6


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: outcomes(row(1, 2), row(1, 2, 3)), r"logits: golden \(1, 2\), faulty \(1, 3\)"),
        (lambda: outcomes(row(1, 2)[0], row(1, 2)[0]), "logits: "),
        (lambda: outcomes(row(1, 2), row(1, 2).astype(np.float64)), "logits: golden float32, faulty float64"),
        (lambda: outcomes(row(1, 2).astype(int), row(1, 2).astype(int)), "logits: golden int64"),
        (lambda: outcomes(row(1, np.nan), row(1, 2)), "1 of 1 golden rows"),
        (lambda: outcomes(row(1, 2), row(1, 2), np.array([0, 1])), "labels: "),
        (lambda: Outcomes(1, 1, 0, 0, 0).share("critical"), "outcome: 'critical'"),
        (lambda: Outcomes(0, 0, 0, 0, 0).share("due"), "of no images"),
        (lambda: critical(Outcomes(1, 1, 0, 0, 0), 0.0), "critical: 0.0"),
        (lambda: critical(Outcomes(1, 1, 0, 0, 0), 1.5), "critical: 1.5"),
    ],
)
def test_an_impossible_comparison_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
