r"""Make edits one after the other on one model, for one model or several: BLEU, and whether the earlier edits hold.

    python scripts/edit_sequence.py --model_name_or_path runs/main/baseline runs/main/editable \
        --names baseline editable --edits_dir runs/main/edits --data_dir data/grammar --num_edits 100 \
        --output_dir runs/main/sequence
"""

from hf_editable.cli.commands.edit_sequence import main


if __name__ == "__main__":
    raise SystemExit(main())
