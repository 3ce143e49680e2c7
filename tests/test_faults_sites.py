"""Fault sites: which there are, and how they are chosen."""

from __future__ import annotations

import pytest
from faulty_net import Net, trained_net

from ftnas.errors import FaultError
from ftnas.faults import sites
from ftnas.quantization import quantized_layers


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


def test_sites_are_the_weights_and_outputs_of_quantised_layers(net: Net) -> None:
    found = {site.name: site for site in sites(net)}
    expected = {f"{path}.output" for path in quantized_layers(net)} | {"stem.weight", "body.weight", "head.weight"}
    assert set(found) == expected
    assert {found[name].layer for name in found} == {"conv", "linear", "sum"}
    assert found["body.weight"].shape == (8, 4, 3, 3)
    assert found["body.output"].macs_per_value == 36
    assert found["sum.output"].macs_per_value == 0
    assert found["head.output"].macs_per_value == 8


def test_a_pattern_chooses_sites(net: Net) -> None:
    assert [site.name for site in sites(net, "*.weight")] == ["stem.weight", "body.weight", "head.weight"]


def test_a_pattern_that_matches_none_is_an_error_that_names_it(net: Net) -> None:
    with pytest.raises(FaultError, match=r"pattern 'stems\.\*' matches no fault site"):
        sites(net, "stems.*")


def test_the_site_of_an_output_has_a_format_once_its_range_is_measured(net: Net) -> None:
    assert all(site.number is None for site in sites(Net(), "*.output"))
    assert all(site.number is not None for site in sites(net))
