"""A page to try edits on: one model in memory, and each user's edits of it apart."""
