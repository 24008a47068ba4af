"""Corrections, read from files and found."""
