"""Fault sites: which there are, and how they are chosen."""

from __future__ import annotations

import pytest
from faulty_net import Net, some_images, trained_net

from ftnas.errors import FaultError
from ftnas.faults import output_shapes, sites
from ftnas.quantization import Quantization, quantized_layers


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


def test_the_bits_of_a_site_are_those_of_all_its_values(net: Net) -> None:
    weight = sites(net, "body.weight")[0]
    assert weight.bits_total == 8 * 4 * 3 * 3 * 8
    with pytest.raises(FaultError, match=r"body\.output: its shape is known only after a forward pass"):
        _ = sites(net, "body.output")[0].bits_total


def test_shapes_that_are_given_make_output_sites_whole(net: Net) -> None:
    found = sites(net, shapes=output_shapes(net, some_images()[:1]))
    assert {site.name: site.bits_total for site in found if site.kind == "output"} == {
        "stem.output": 8 * 8 * 8 * 8,
        "body.output": 8 * 8 * 8 * 8,
        "sum.output": 8 * 8 * 8 * 8,
        "head.output": 10 * 8,
    }


def test_sites_print_as_a_table(net: Net) -> None:
    weight, output = net.stem.weight_number(net.stem.weight), net.stem.feature_number()
    width = max(len(str(weight)), len(str(output)))
    assert repr(sites(net, "stem.*")).splitlines() == [
        f"site         layer  shape    {'format':<{width}}  MACs per value  values   bits",
        f"stem.weight  conv   8x3x3x3  {weight!s:<{width}}              27     216  1,728",
        f"stem.output  conv   ?        {output!s:<{width}}              27       ?      ?",
        "2 sites; weights: 216 values, 1,728 bits; 1 output of unknown shape: give shapes=output_shapes(model, images)",
    ]
    assert str(sites(net)) == repr(sites(net))


def test_the_table_of_all_sites_ends_with_their_bits(net: Net) -> None:
    table = str(sites(net, shapes=output_shapes(net, some_images()[:1])))
    assert table.endswith("7 sites; weights: 584 values, 4,672 bits; outputs of one image: 1,546 values, 12,368 bits")


def test_the_table_names_words_and_ranges_that_were_not_measured() -> None:
    assert "8 bits, range not measured" in str(sites(Net()))
    assert "bfloat16" in str(sites(Net((Quantization(word="bfloat16"),))))


def test_sites_are_a_list(net: Net) -> None:
    found = sites(net)
    assert isinstance(found, list)
    assert [found[index].name for index in (0, 2, 5)] == [site.name for site in found if site.kind == "weight"]
