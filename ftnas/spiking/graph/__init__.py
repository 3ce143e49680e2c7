"""Spiking nets as graphs: integer weights, thresholds and delays, simulated many at once and evolved."""
