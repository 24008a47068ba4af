"""Scores, bounds and gradients: tensors in, tensors out."""
