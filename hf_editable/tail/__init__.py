"""The trunk once, the edited tail again and again."""
