"""Files of search spaces that are wrong or missing: one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ftnas.configuration import validate
from ftnas.errors import ConfigError, FtnasError, SpaceError
from ftnas.space import OPERATORS, SearchSpace, load_space

TINY = load_space("tiny")


def space_with(**changes: Any) -> SearchSpace:
    return validate(SearchSpace, TINY.to_dict() | changes, source="space.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"operators": ["none", "conv_7x7"]},
            f"operators.1: unknown operator; choose from {', '.join(OPERATORS)}, got 'conv_7x7'",
        ),
        ({"operators": []}, "operators: at least one is needed"),
        ({"operators": ["none", "none"]}, "operators: none is listed twice"),
        (
            {"search": {"channels": 4, "cells": 2, "reductions": [2]}},
            "search: reductions: cell 2 is outside the layout; 2 cells have indices 0..1",
        ),
        (
            {"final": {"channels": 4, "cells": 2, "reductions": [-1]}},
            "final: reductions: cell -1 is outside the layout; 2 cells have indices 0..1",
        ),
        (
            {"search": {"channels": 4, "cells": 9, "reductions": [5, 2]}},
            "search: reductions: indices must rise without repeating, got [5, 2]",
        ),
        (
            {"search": {"channels": 4, "cells": 1, "reductions": [0]}},
            "search: reductions: at least one of the 1 cells must stay normal",
        ),
        (
            {"final": {"channels": 4, "cells": 2, "reductions": [1]}},
            "(whole file): search and final must both have reductions or both have none",
        ),
        ({"search": {"channels": 1, "cells": 2}}, "search.channels: "),
        ({"nodes": 0}, "nodes: "),
        ({"nodes": 7}, "nodes: "),
        ({"inputs_per_node": 0}, "inputs_per_node: "),
        ({"colour": "red"}, "colour: unknown key; choose from activation, affine, base_quantization, description"),
        ({"stem": {"multiplyer": 3}}, "stem.multiplyer: unknown key; choose from multiplier"),
        ({"preprocess": {"operator": "conv_1x1"}}, "preprocess.operator: "),
        ({"name": "my space"}, "name: "),
        ({"quantization": []}, "quantization: at least one is needed"),
        (
            {"quantization": [{}, {"weight_bits": 8}]},
            "quantization: w8:power_of_two f8:power_of_two is listed twice",
        ),
        ({"quantization": [{"weight_bits": 1}]}, "quantization.0: weight_bits must be 2..16, got 1"),
        ({"quantization": [{"weight_bits": True}]}, "quantization.0: weight_bits must be a whole number"),
        ({"quantization": [{"feature_bits": 4.5}]}, "quantization.0: feature_bits must be a whole number"),
        ({"quantization": [{"weight_range": "fixed(0)"}]}, "quantization.0: weight_range: a fixed range needs a"),
        ({"quantization": [{"weight_range": "fixed(1e)"}]}, "quantization.0: weight_range: "),
        ({"quantization": [{"weight_range": "fixed(1e999)"}]}, "quantization.0: weight_range: fixed(1e999) has no"),
        ({"quantization": [{"feature_range": "loose"}]}, "quantization.0: feature_range: unknown range 'loose'"),
        ({"quantization": [{"feature_range": 2}]}, "quantization.0: feature_range must be power_of_two, max"),
        ({"quantization": [{"bits": 8}]}, "quantization.0: unknown key 'bits'; choose from weight_bits, weight_range"),
        ({"quantization": ["learned"]}, "quantization.0: a mapping with keys from weight_bits"),
        ({"base_quantization": {"weight_bits": 99}}, "base_quantization: weight_bits must be 2..16, got 99"),
    ],
)
def test_a_wrong_key_is_one_line_with_file_and_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        space_with(**changes)
    assert str(error.value).startswith(f"space.yaml: {message}")
    assert "\n" not in str(error.value)


def test_every_error_of_a_file_has_its_own_line() -> None:
    with pytest.raises(ConfigError) as error:
        space_with(operators=["conv_7x7"], nodes=0)
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == ["operators.0", "nodes"]


def test_an_unknown_name_lists_the_bundled_spaces() -> None:
    with pytest.raises(SpaceError, match=r"^unknown search space 'digts'; choose from cifar10_small, .*tiny, or give"):
        load_space("digts")


def test_a_relative_path_starts_from_the_given_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TINY.to_dict()), encoding="utf-8")
    assert load_space("mine.yaml", relative_to=tmp_path) == TINY


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FtnasError, match=r"mine\.yaml: cannot be read"):
        load_space("mine.yaml", relative_to=tmp_path)
