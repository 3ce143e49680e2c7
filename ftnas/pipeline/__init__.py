"""A run: its configuration, its folder, its stages."""
