r"""Compare the optimizers of edits, each with coefficients tuned on validation edits (the paper's Table 1).

    python scripts/compare_editors.py --model_name_or_path runs/main/baseline --data_dir data/grammar \
        --validation_edits_dir runs/main/edits_validation --test_edits_dir runs/main/edits_test \
        --num_validation_edits 50 --num_edits 100 --output_dir runs/main/editors

`accelerate launch --num_processes 2` before the script deals the edits out to two GPUs, with the same result.
"""

from hf_editable.cli.commands.compare_editors import main


if __name__ == "__main__":
    raise SystemExit(main())
