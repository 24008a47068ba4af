r"""List what a model translates worst, as a file of corrections to its references.

    python scripts/find_mistakes.py --model_name_or_path runs/main/baseline --data_dir data/grammar \
        --num_mistakes 50 --output_file corrections.csv

`hf-editable apply corrections.csv` corrects them.
"""

from hf_editable.cli.commands.find_mistakes import main


if __name__ == "__main__":
    raise SystemExit(main())
