"""All that knows a class of models."""
