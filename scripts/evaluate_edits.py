r"""Measure what single edits cost everything else (BLEU drawdown), for one model or several on the same edits.

    python scripts/evaluate_edits.py --model_name_or_path runs/main/baseline runs/main/editable \
        --names baseline editable --edits_dir runs/main/edits --data_dir data/grammar --num_edits 100 \
        --output_dir runs/main/evaluation

`accelerate launch --num_processes 2` before the script deals the edits out to two GPUs, with the same result.
"""

from hf_editable.cli.commands.evaluate_edits import main


if __name__ == "__main__":
    raise SystemExit(main())
