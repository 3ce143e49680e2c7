from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from ftnas import api
from ftnas.errors import FaultError
from ftnas.spiking.dense.active import CodeChange
from ftnas.spiking.dense.defences import bypassed
from ftnas.spiking.dense.fault_map import FaultMap, PartFault, draw_map, inject_map, joined_maps
from ftnas.spiking.dense.hardware_faults import SPIKING_FAULTS, SpikingFault
from ftnas.spiking.dense.json_file import read_network_json, write_network_json
from ftnas.spiking.dense.map_file import load_map, save_map
from ftnas.spiking.dense.mapping import mapped_around
from ftnas.spiking.dense.stored import stored_layers
from ftnas.spiking.dense.synapses import read_weight
from tests.command_line import ftnas
from tests.spiking_nets import digits, small_net

HEAD = "layer,part,kind,element,value,first,until\n"


def weight_codes(faults: tuple[PartFault, ...]) -> list[int]:
    """Return the codes of the first layer's first two weights as a net meets them on a chip."""
    net = small_net()
    synapses = net.stages[0].synapses
    from ftnas.spiking.dense.fault_map import _layer_faults

    active = _layer_faults(net, FaultMap(faults)).get(synapses)
    changes: tuple[CodeChange, ...] = getattr(active, "lasting", ())
    stored = synapses.quantized_weight(synapses.weight, synapses.quantization)
    number = stored_layers(net)[0].number
    codes = number.encode(read_weight(synapses, stored, changes)).flatten()
    return [int(code) for code in codes[:2]]


def bit(kind: str, element: int, value: int) -> PartFault:
    return PartFault(0, "synapses", kind, element, float(value))


def test_several_broken_bits_of_one_weight_are_all_broken() -> None:
    clean = weight_codes(())
    found = weight_codes((bit("flipped", 0, 0), bit("flipped", 0, 2), bit("flipped", 1, 1)))
    assert found == [clean[0] ^ 0b101, clean[1] ^ 0b10]


@pytest.mark.parametrize("place", range(8))
def test_a_stuck_bit_reads_as_it_is_stuck(place: int) -> None:
    word = weight_codes(())[0] & 0xFF
    low, high = (weight_codes((bit(f"stuck_at_{value}", 0, place),))[0] & 0xFF for value in (0, 1))
    assert (low, high) == (word & ~(1 << place) & 0xFF, word | 1 << place)
    assert word in (low, high)


@given(st.lists(st.sampled_from(sorted(SPIKING_FAULTS)), min_size=1, max_size=4), st.integers(0, 5), st.booleans())
@budget(max_examples=30, deadline=None)
def test_a_map_reads_back_from_either_kind_of_file(names: list[str], chip: int, transient: bool) -> None:
    import tempfile

    net = small_net()
    lasting: Any = "transient" if transient else "permanent"
    drawn = draw_map(net, [SpikingFault(name, 0.1, duration=lasting, steps=2) for name in names], chip=chip)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".json", ".csv"):
            save_map(drawn, Path(folder) / f"map{suffix}")
            assert load_map(Path(folder) / f"map{suffix}", net) == drawn


def test_a_table_may_leave_out_what_is_usual(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("element,layer,kind,part\n3,0,dead,neurons\n")
    assert load_map(tmp_path / "map.csv", small_net()) == FaultMap((PartFault(0, "neurons", "dead", 3),))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "its first line must name the columns layer, part, kind, element"),
        ("layer,part,kind\n", "its first line must name the columns"),
        ("layer,part,kind,element,colour\n", "its first line must name the columns"),
        ("layer,part,kind,element,element\n", "its first line must name the columns"),
        (HEAD + "0,neurons\n", "fault 0: 7 cells are needed, got 2"),
        (HEAD + "0,neurons,dead,1,,,\n0.5,neurons,dead,1,,,\n", "fault 1: layer must be a whole number, got 0.5"),
        (HEAD + "0,neurons,dead,x,,,\n", "fault 0: element must be a whole number, got 'x'"),
        (HEAD + "0,neurons,dead,,,,\n", "fault 0: element is missing"),
        (HEAD + "0,axons,dead,1,,,\n", "fault 0: part must be neurons or synapses, got 'axons'"),
        (HEAD + "0,neurons,tired,1,,,\n", "fault 0: 'neurons.tired' is unknown; choose from"),
        (HEAD + "0,synapses,flipped,1,8,,\n", "fault 0: value of flipped must be a whole number, 0 to 7"),
        (HEAD + "0,synapses,flipped,1,nan,,\n", "fault 0: value must be -1e\\+09 to 1e\\+09, got nan"),
        (HEAD + "0,neurons,dead,1,,0,9\n", "fault 0: steps 0 to 9 must be"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(FaultError, match=words) as caught:
        load_map(tmp_path / "map.csv", small_net())
    assert "\n" not in str(caught.value) and "map.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], 'is no fault map \\(it needs "schema": 1 and a list "faults"\\)'),
        ({"schema": 1, "faults": {}}, "is no fault map"),
        ({"schema": 2, "faults": []}, "is no fault map"),
        ({"schema": 1, "faults": [3]}, "fault 0: an object with layer, part, kind, element is needed, got 3"),
        ({"schema": 1, "faults": [{"layer": True, "part": "neurons", "kind": "dead", "element": 0}]}, "got True"),
        ({"schema": 1, "faults": [{"layer": 0, "part": "neurons", "kind": 3, "element": 0}]}, "kind must be text"),
        (
            {"schema": 1, "faults": [{"layer": 0, "part": "neurons", "kind": "leak", "element": 0, "value": 1e300}]},
            "value must be",
        ),
    ],
)
def test_wrong_json_is_refused_in_one_line(content: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps(content))
    with pytest.raises(FaultError, match=words) as caught:
        load_map(tmp_path / "map.json", small_net())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_map_by_its_name_is_refused(tmp_path: Path) -> None:
    for call in (lambda path: load_map(path, small_net()), lambda path: save_map(FaultMap(), path)):
        with pytest.raises(FaultError, match=r"ends in \.json or \.csv"):
            call(tmp_path / "map.pickle")
    with pytest.raises(FaultError, match="cannot be read"):
        load_map(tmp_path / "none.json", small_net())


def test_maps_join_to_all_that_either_breaks() -> None:
    one, other = (FaultMap((PartFault(0, "neurons", "dead", element),)) for element in (1, 4))
    with torch.no_grad(), inject_map(small_net(), joined_maps(one, other)) as _:
        pass
    assert joined_maps(one, other).faults == (*one.faults, *other.faults)


@pytest.fixture(scope="module")
def net_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ftnas.runtime import seeded
    from ftnas.spiking.dense.network import SpikingNet
    from ftnas.spiking.dense.specification import SpikingSpec
    from ftnas.training import train
    from tests.spiking_nets import settings

    data = digits()
    with seeded("initialisation", 0):
        net = SpikingNet(SpikingSpec(widths=(16,), steps=2, threshold=0.5), data.image_shape, data.classes)
    train(net, data.train_images, data.train_labels, settings=settings(3), faults=(), key="training")
    file = tmp_path_factory.mktemp("net") / "lif.json"
    write_network_json(net.eval(), file, facts={"data": "digits"})
    return file


def test_a_chip_is_drawn_written_checked_and_measured(net_file: Path, tmp_path: Path) -> None:
    words = ["--faults", "synapses.dead:0.3", "--faults", "neurons.dead:0.1", "--chip", 3]
    drawn = ftnas("faultmap", net_file, *words, "--out", tmp_path / "chip.csv", "--json")
    assert drawn.exit_code == 0, drawn.output
    read = ftnas("faultmap", net_file, "--map", tmp_path / "chip.csv", "--json")
    one, other = json.loads(drawn.stdout), json.loads(read.stdout)
    assert one.pop("map") == str(tmp_path / "chip.csv") and one == other
    # What a dead synapse reads as is what a chip that passes it by computes.
    assert one["clean"] > one["on_chip"] == one["bypassed"]
    assert set(one["kinds"]) == {"neurons.dead", "synapses.dead"} and one["faults"] == sum(one["kinds"].values())


def test_neurons_are_placed_around_a_map_from_the_command_line(net_file: Path, tmp_path: Path) -> None:
    ftnas("faultmap", net_file, "--faults", "synapses.flipped:0.1", "--chip", 1, "--out", tmp_path / "chip.json")
    out = tmp_path / "placed"
    printed = ftnas("remap", net_file, "--map", tmp_path / "chip.json", "--out", out, "--json")
    assert printed.exit_code == 0, printed.output
    found = json.loads(printed.stdout)
    assert found["after"] > found["before"]
    assert found["clean"] == pytest.approx(
        json.loads(ftnas("faultmap", net_file, "--map", tmp_path / "chip.json", "--json").stdout)["clean"], abs=0.01
    )
    assert api.remap(net_file, tmp_path / "chip.json", tmp_path / "again") == {
        key: value for key, value in found.items() if key != "folder"
    }
    net = read_network_json(out / "net.json")
    again = mapped_around(
        read_network_json(net_file), load_map(tmp_path / "chip.json", net), digits().train_images[:256]
    )
    assert torch.equal(net(digits().test_images), again(digits().test_images))
    assert load_map(out / "map.json", net) == load_map(tmp_path / "chip.json", net)
    assert (
        ftnas(
            "campaign",
            out,
            "--faults",
            "neurons.dead:0.1",
            "--map",
            out / "map.json",
            "--chips",
            2,
            "--images",
            50,
            "--out",
            tmp_path / "c",
        ).exit_code
        == 0
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["faultmap"], "--faults, --map: give one of them"),
        (["faultmap", "--faults", "weights.bit_flip:0.1"], "is no fault that a map holds; choose from neurons.dead"),
        (["faultmap", "--faults", "neurons.dead:0.1", "--out", "x.txt"], "x.txt: a fault map is a file that ends in"),
        (["faultmap", "--map", "none.csv"], "none.csv: cannot be read"),
        (["faultmap", "--map", "none.csv", "--chip", "1"], "--chip: says which chip is drawn"),
        (["remap", "--map", "none.csv", "--out", "x"], "none.csv: cannot be read"),
    ],
)
def test_an_impossible_request_is_refused_in_one_line(net_file: Path, words: list[str], message: str) -> None:
    printed = ftnas(words[0], net_file, *words[1:])
    assert printed.exit_code == 2 and message in printed.stderr and len(printed.stderr.splitlines()) == 1


def test_bypassing_leaves_neurons_as_they_are() -> None:
    given = FaultMap((bit("flipped", 0, 3), PartFault(0, "neurons", "leak", 2, 0.5)))
    assert bypassed(given).faults == (bit("dead", 0, 0), given.faults[1])
