r"""Measure whether edits carry over to variants of their sources, and stay away from other sentences.

    python scripts/measure_generality.py --model_name_or_path runs/main/baseline runs/main/editable \
        --names baseline editable --edits_dir runs/main/edits --data_dir data/grammar --num_edits 100 \
        --output_dir runs/main/generality

`accelerate launch --num_processes 2` before the script deals the edits out to two GPUs, with the same result.
"""

from hf_editable.cli.commands.measure_generality import main


if __name__ == "__main__":
    raise SystemExit(main())
