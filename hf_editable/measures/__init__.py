"""What is measured of edits, and how sure it is."""
