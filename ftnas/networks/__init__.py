"""Nets of quantised layers: the supernet, what is derived from it, and the baselines."""

from ftnas.networks.baselines import BASELINES, build_baseline
from ftnas.networks.cell_network import CellNetwork
from ftnas.networks.cells import Mixture, all_edges
from ftnas.networks.operators import BUILDERS

__all__ = ["BASELINES", "BUILDERS", "CellNetwork", "Mixture", "all_edges", "build_baseline"]
