"""Searching: architecture weights, supernet training, scores, controllers. Knows nothing of files' formats."""
