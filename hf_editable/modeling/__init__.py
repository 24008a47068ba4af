"""Editable models: the mixin, the Auto class, the objective of training."""
