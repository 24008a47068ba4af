"""Edits at the level of text, verified by beam search."""
