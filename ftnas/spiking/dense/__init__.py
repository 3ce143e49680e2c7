"""Layered nets of leaky integrate-and-fire neurons: quantised, trained by surrogate gradients, open to faults."""
