"""Random operations on one store, and an independent account of what must hold after each of them."""
