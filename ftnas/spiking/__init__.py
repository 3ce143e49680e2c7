"""Spiking nets: evolved graphs and trained layers, on neuromorphic hardware that fails."""
