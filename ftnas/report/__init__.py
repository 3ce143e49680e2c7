"""What people read of a run: one HTML file, its figures and tables. Knows nothing of how a run is computed."""
