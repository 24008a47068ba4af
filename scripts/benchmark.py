"""Time edits, training steps and mining against plain ways of doing the same, and take the peak memory of both.

python scripts/benchmark.py --output_dir results/benchmark
"""

from hf_editable.cli.benchmark import main


if __name__ == "__main__":
    raise SystemExit(main())
