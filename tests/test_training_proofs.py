"""What the objectives are for, measured: seeds, chips and images are the same for all nets of a comparison."""

from __future__ import annotations

from statistics import fmean

import pytest
from robust_nets import SEEDS, clean, trained, under
from small_nets import digits

from ftnas.training import sharpness, zero_share

pytestmark = pytest.mark.slow

QAT = {"objective": "qat"}
CLIP = {"objective": "qat", "clip": 0.2}
SAQ = {"objective": "saq", "rho": 0.2, "clip": "none"}
RANDBET = {"objective": "randbet", "faults": ["weights.bit_flip:0.01"], "clip": 0.2}
SPARSE_SAQ = SAQ | {"sparsity": {"l1": 0.3}}
FLIPS, MORE_FLIPS = "weights.bit_flip:0.01", "weights.bit_flip:0.03"


def mean_under(fault: str, **robustness: object) -> float:
    return fmean(under(fault, trained(seed, **robustness)) for seed in SEEDS)


def mean_clean(**robustness: object) -> float:
    return fmean(clean(trained(seed, **robustness)) for seed in SEEDS)


def mean_zeros(**robustness: object) -> float:
    return fmean(zero_share(trained(seed, **robustness), digits().test_images) for seed in SEEDS)


def test_saq_gains_three_points_under_flips_for_little_clean_accuracy() -> None:
    assert mean_under(FLIPS, **SAQ) >= mean_under(FLIPS, **QAT) + 0.03
    assert mean_clean(**SAQ) >= mean_clean(**QAT) - 0.015


@pytest.mark.parametrize("seed", SEEDS)
def test_saq_finds_flatter_minima(seed: int) -> None:
    data = digits()
    flat, plain = (sharpness(trained(seed, **kind), data.test_images, data.test_labels, rho=0.5) for kind in (SAQ, QAT))
    assert 0 < flat < plain


def test_clipping_alone_gains_five_points() -> None:
    assert mean_under(FLIPS, **CLIP) >= mean_under(FLIPS, **QAT) + 0.05


def test_clipping_is_better_than_nothing_and_with_random_errors_better_still() -> None:
    plain, clipped, both = (mean_under(MORE_FLIPS, **kind) for kind in (QAT, CLIP, RANDBET))
    assert plain < clipped < both


def test_a_sparse_net_trained_flat_is_no_worse_than_a_plain_one() -> None:
    assert mean_under(FLIPS, **SPARSE_SAQ) >= mean_under(FLIPS, **QAT)
    assert mean_zeros(**SPARSE_SAQ) >= mean_zeros(**QAT) + 0.15


@pytest.mark.parametrize(("term", "weights"), [("l1", (0.1, 0.3, 1.0)), ("hoyer", (1e-5, 1e-4, 1e-3))])
def test_more_weight_on_a_term_of_sparsity_leaves_more_zeros(term: str, weights: tuple[float, ...]) -> None:
    shares = [mean_zeros(**QAT), *(mean_zeros(**QAT | {"sparsity": {term: weight}}) for weight in weights)]
    assert shares == sorted(shares)
    assert shares[-1] > shares[0] + 0.1


def test_the_worst_flips_teach_at_least_as_much_as_random_ones() -> None:
    worst = RANDBET | {"objective": "worst_bits", "faults": ["weights.bit_flip:0.001"]}
    assert mean_under(MORE_FLIPS, **worst) >= mean_under(MORE_FLIPS, **RANDBET) - 0.01
