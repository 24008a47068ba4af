"""The commands of hf_editable: one file each, with a `main(argv)` that scripts/ and `hf-editable` start."""

from .running import parse_arguments, run_main, tell


__all__ = ["parse_arguments", "run_main", "tell"]
