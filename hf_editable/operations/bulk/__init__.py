"""Lists of corrections."""
