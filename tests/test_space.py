"""Search spaces: what their files say, what they hold, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from genotype_strategies import genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnas.errors import SpaceError
from ftnas.quantization import Quantization, Range
from ftnas.space import (
    OPERATORS,
    Edge,
    Genotype,
    bundled_spaces,
    hand_made,
    has_numbers,
    load_space,
    w_ftt_net,
)

BUNDLED = (
    "cifar10_small",
    "cifar10_small_weights",
    "darts_feature_faults",
    "darts_weight_faults",
    "digits",
    "digits_weights",
    "tiny",
)
DIGITS, TINY = load_space("digits"), load_space("tiny")


# Bundled spaces


def test_the_bundled_spaces_are_those_of_the_documentation() -> None:
    assert tuple(bundled_spaces()) == BUNDLED


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_space_is_called_as_its_file(name: str) -> None:
    assert load_space(name).name == name


@pytest.mark.parametrize("name", BUNDLED)
def test_a_space_survives_yaml(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    (tmp_path / "copy.yaml").write_text(yaml.safe_dump(space.to_dict()), encoding="utf-8")
    assert load_space(tmp_path / "copy.yaml") == space


def test_the_published_spaces_have_8_and_11_primitives_and_the_published_layout() -> None:
    features, weights = load_space("darts_feature_faults"), load_space("darts_weight_faults")
    assert (len(features.operators), len(weights.operators)) == (8, 11)
    for space in (features, weights):
        assert (space.search.channels, space.search.cells, space.search.reductions) == (20, 8, (2, 5))


def test_without_numbers_the_published_space_has_the_published_number_of_encodings() -> None:
    space = load_space("darts_feature_faults").model_copy(update={"quantization": (Quantization(),)})
    assert space.size == ((2 * 3 * 4 * 5) ** 2 * 8**8) ** 2


def test_the_tiny_space_lists_each_architecture_once() -> None:
    listed = list(TINY.enumerate())
    assert len(listed) == len({genotype.key for genotype in listed}) == 49


def test_the_tiny_space_lists_all_architectures() -> None:
    rng = torch.Generator().manual_seed(0)
    assert {TINY.canonical(TINY.sample(rng)) for _ in range(2000)} == set(TINY.enumerate())


def test_a_large_space_is_not_listed() -> None:
    with pytest.raises(SpaceError, match=r"space digits: 8.5e\+15 encodings; at most 1,000,000 can be listed"):
        DIGITS.enumerate()


# Genotypes of a space


@settings(max_examples=50)
@given(st.data())
@pytest.mark.parametrize("name", BUNDLED)
def test_a_genotype_survives_its_decisions(name: str, data: st.DataObject) -> None:
    space = load_space(name)
    genotype = data.draw(genotypes_of(space))
    assert space.genotype(space.choices(genotype)) == genotype


@settings(max_examples=50)
@given(st.data())
def test_decisions_survive_the_genotype(data: st.DataObject) -> None:
    choices = data.draw(st.fixed_dictionaries({d.name: st.integers(0, d.options - 1) for d in DIGITS.decisions()}))
    assert DIGITS.choices(DIGITS.genotype(choices)) == choices


@settings(max_examples=50)
@given(genotypes_of(DIGITS))
def test_the_canonical_form_stays_in_the_space(genotype: Genotype) -> None:
    DIGITS.check(DIGITS.canonical(genotype))


@settings(max_examples=50)
@given(genotypes_of(DIGITS))
def test_the_canonical_form_of_the_space_is_idempotent(genotype: Genotype) -> None:
    canonical = DIGITS.canonical(genotype)
    assert DIGITS.canonical(canonical) == canonical


@given(st.integers(0, 2**62))
def test_a_sample_stays_in_the_space(seed: int) -> None:
    DIGITS.check(DIGITS.sample(torch.Generator().manual_seed(seed)))


def test_the_same_seed_draws_the_same_genotype() -> None:
    first, second = (DIGITS.sample(torch.Generator().manual_seed(7)) for _ in range(2))
    assert first == second


def test_a_skip_has_numbers_only_where_it_halves_the_map() -> None:
    assert (has_numbers("skip_connect", 1), has_numbers("skip_connect", 2)) == (False, True)


def test_the_numbers_of_a_skip_count_only_in_a_reduction_cell() -> None:
    fixed = DIGITS.quantization[1]
    plain, other = (((Edge("skip_connect", 0, q),) * 2,) * 3 for q in (DIGITS.quantization[0], fixed))
    assert DIGITS.canonical(Genotype(plain, plain)) == DIGITS.canonical(Genotype(other, plain))
    assert DIGITS.canonical(Genotype(plain, plain)) != DIGITS.canonical(Genotype(plain, other))


@pytest.mark.parametrize("operator", [o for o in OPERATORS if "conv" in o])
def test_every_convolution_has_numbers(operator: str) -> None:
    assert has_numbers(operator, 1)
    assert has_numbers(operator, 2)


def test_only_edges_from_the_inputs_of_a_reduction_cell_have_stride_2() -> None:
    strides = {(kind, source): DIGITS.stride(kind, source) for kind in DIGITS.kinds for source in (0, 1, 2)}
    assert [place for place, stride in strides.items() if stride == 2] == [("reduction", 0), ("reduction", 1)]


def test_channels_double_in_each_reduction_cell() -> None:
    sizes = load_space("darts_weight_faults").final
    assert [sizes.width(cell) for cell in range(8)] == [20, 20, 40, 40, 40, 80, 80, 80]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal.2.0.source": 2}, r"decision normal\.2\.0\.source takes 0\.\.1, got 2"),
        ({"normal.2.0.operator": -1}, r"decision normal\.2\.0\.operator takes 0\.\.2, got -1"),
        ({"normal.9.0.source": 0}, r"space tiny: unknown decision 'normal\.9\.0\.source'"),
    ],
)
def test_an_impossible_choice_is_one_clear_line(change: dict[str, int], message: str) -> None:
    choices = TINY.choices(next(TINY.enumerate())) | change
    with pytest.raises(SpaceError, match=message):
        TINY.genotype(choices)


def test_a_missing_choice_is_named() -> None:
    choices = TINY.choices(next(TINY.enumerate()))
    del choices["normal.3.0.operator"]
    with pytest.raises(SpaceError, match=r"decision normal\.3\.0\.operator is missing; it takes 0\.\.2"):
        TINY.genotype(choices)


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (Genotype(((Edge("conv_1x1", 0),), (Edge("none", 0),))), "normal.2.0: operator 'conv_1x1' is not in the space"),
        (Genotype(((Edge("none", 2),), (Edge("none", 0),))), "normal.2.0: source must be 0..1, got 2"),
        (Genotype(((Edge("none", -1),), (Edge("none", 0),))), "normal.2.0: source must be 0..1, got -1"),
        (Genotype(((Edge("none", 0, Quantization(2)),), (Edge("none", 0),))), "normal.2.0: quantisation w2"),
        (Genotype(((Edge("none", 0),),)), "the normal cell needs 2 nodes, got 1"),
        (Genotype(((Edge("none", 0),) * 2, (Edge("none", 0),))), "normal.2: 1 edges are needed, got 2"),
        (w_ftt_net(), "the normal cell needs 2 nodes, got 4"),
        (Genotype(((Edge("none", 0),),) * 2, ((Edge("none", 0),),)), "the reduction cell needs 0 nodes, got 1"),
    ],
)
def test_a_genotype_of_another_space_is_refused_with_its_place(genotype: Genotype, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        TINY.check(genotype)
    assert f"space tiny: {message}" in str(error.value)
    assert "\n" not in str(error.value)


# Published and hand-made cells


def test_the_published_w_ftt_net_is_in_the_published_space() -> None:
    load_space("darts_weight_faults").check(w_ftt_net())


def test_7_of_8_normal_edges_of_w_ftt_net_start_from_the_inputs() -> None:
    sources = [edge.source for node in w_ftt_net().normal for edge in node]
    assert sum(source < 2 for source in sources) == 7


@pytest.mark.parametrize("name", BUNDLED)
def test_a_hand_made_cell_is_in_its_space(name: str) -> None:
    space = load_space(name)
    space.check(hand_made(space))


def test_a_hand_made_dense_cell_sums_two_dense_convolutions_of_the_inputs_in_8_bits() -> None:
    space = load_space("digits_weights")
    node = (Edge("relu_conv_bn_3x3", 0), Edge("relu_conv_bn_3x3", 1))
    assert hand_made(space, "dense").normal == (node,) * space.nodes


def test_a_hand_made_cell_takes_the_first_numbers_where_8_bit_power_of_two_is_not_allowed() -> None:
    numbers = Quantization(4, Range("fixed", 0.5))
    space = TINY.model_copy(update={"quantization": (numbers, Quantization(2))})
    assert {edge.quantization for node in hand_made(space).normal for edge in node} == {numbers}


def test_a_hand_made_cell_needs_its_operator() -> None:
    with pytest.raises(SpaceError, match=r"space tiny: a dense hand-made cell needs relu_conv_bn_3x3"):
        hand_made(TINY, "dense")


def test_an_unknown_hand_made_style_is_named() -> None:
    with pytest.raises(SpaceError, match=r"unknown style 'wide'; choose from separable, dense"):
        hand_made(TINY, "wide")  # type: ignore[arg-type]
