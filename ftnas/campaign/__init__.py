"""Measuring nets under faults. Knows nothing of which net it measures."""

from ftnas.campaign.measurement import CONFIDENCE, Measurement, accuracy, chip_accuracies

__all__ = ["CONFIDENCE", "Measurement", "accuracy", "chip_accuracies"]
