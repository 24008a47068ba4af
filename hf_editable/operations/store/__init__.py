"""Folders of edits that stay."""
