"""Check that training gives the same losses on one process and on two, and with accumulated batches.

python scripts/check_invariance.py --output_dir results/invariance
"""

from hf_editable.cli.check_invariance import main


if __name__ == "__main__":
    raise SystemExit(main())
