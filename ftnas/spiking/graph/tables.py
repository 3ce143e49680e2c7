"""A spiking graph as fixed-point tables: what a processor's memory is loaded with."""

from __future__ import annotations

from collections.abc import Sequence

from ftnas.files import csv_text
from ftnas.spiking.graph.genome import Genome, Processor
from ftnas.spiking.graph.network_file import Network


def neuron_table(net: Genome) -> str:
    """Return a line of CSV for each neuron: number, role, and threshold where it is no input."""
    roles = [(node, "input", "") for node in range(net.inputs)]
    roles += [
        (node, "output" if node < net.first_hidden else "hidden", str(threshold))
        for node, threshold in sorted(net.thresholds.items())
    ]
    return csv_text(("neuron", "role", "threshold"), roles)


def synapse_table(net: Genome, processor: Processor) -> str:
    """Return a line of CSV for each synapse; ``code`` is the weight as stored, two's complement in hexadecimal."""
    digits = (processor.weight_bits + 3) // 4
    rows = [(*synapse, f"0x{_code(synapse.weight, processor):0{digits}x}") for synapse in net.synapses]
    return csv_text(("source", "target", "weight", "delay", "code"), rows)


def c_tables(network: Network) -> str:
    """Return a C header with the net as constant arrays; inputs come first, then the neurons in ``neuron_number``."""
    net, processor = network.genome, network.processor
    nodes = sorted(net.thresholds)
    arrays = (
        ("uint16_t", "neuron_number", nodes),
        ("uint16_t", "neuron_threshold", [net.thresholds[node] for node in nodes]),
        ("uint16_t", "synapse_source", [synapse.source for synapse in net.synapses]),
        ("uint16_t", "synapse_target", [synapse.target for synapse in net.synapses]),
        ("int16_t", "synapse_weight", [synapse.weight for synapse in net.synapses]),
        ("uint8_t", "synapse_delay", [synapse.delay for synapse in net.synapses]),
    )
    constants = {
        "INPUTS": net.inputs,
        "OUTPUTS": net.outputs,
        "NEURONS": len(nodes),
        "SYNAPSES": len(net.synapses),
        "STEPS": network.encoding.steps,
        "WEIGHT_BITS": processor.weight_bits,
        "POTENTIAL_MIN": processor.potential_min,
        "LEAK_ALL": int(processor.leak == "all"),
    }
    lines = [f"/* Spiking net for {network.task}, written by ftnas. */", "#pragma once", "#include <stdint.h>", ""]
    lines += [f"#define SNN_{name} ({value})" for name, value in constants.items()]
    # C has no arrays without elements: a net without synapses gets one that SNN_SYNAPSES does not count.
    lines += [f"static const {kind} snn_{name}[] = {{{_listed(values or [0])}}};" for kind, name, values in arrays]
    return "\n".join(lines) + "\n"


def _code(weight: int, processor: Processor) -> int:
    return int(weight & (2**processor.weight_bits - 1))


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
