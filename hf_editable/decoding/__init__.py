"""From sources to translations, by the model's own `generate` or by searches that share what they have in common."""
