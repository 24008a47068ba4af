r"""Which test sentences single edits change, and how alike the edits of a model are (paper, section 4.2).

    python scripts/analyze_edits.py --model_name_or_path runs/main/baseline runs/main/editable \
        --names baseline editable --edits_dir runs/main/edits_test --data_dir runs/main/data --num_edits 100 \
        --evaluation_dir runs/main/results --output_dir runs/main/analysis

`accelerate launch --num_processes 2` before the script deals the edits out to two GPUs, with the same result.
"""

from hf_editable.cli.commands.analyze_edits import main


if __name__ == "__main__":
    raise SystemExit(main())
