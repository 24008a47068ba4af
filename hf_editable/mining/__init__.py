"""Edits mined from a model itself."""
