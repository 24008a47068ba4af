"""What editors solve: make targets outrank their alternatives."""
