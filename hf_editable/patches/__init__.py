"""Edits as changes of a model: applied, taken back, saved."""
