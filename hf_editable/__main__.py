"""`python -m hf_editable`: the command `hf-editable`."""

from .cli.main import main


if __name__ == "__main__":
    raise SystemExit(main())
