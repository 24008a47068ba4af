"""Check that translations of edited models from a record equal those of generate, and time both.

python scripts/check_replay.py --model_name_or_path runs/baseline --data_dir runs/data \
    --edits_dir runs/edits_test --output_dir results/replay
"""

from hf_editable.cli.check_replay import main


if __name__ == "__main__":
    raise SystemExit(main())
