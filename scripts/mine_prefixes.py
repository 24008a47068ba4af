r"""Add to mined edits the prefixes that push their targets out of the beam.

    python scripts/mine_prefixes.py --model_name_or_path runs/main/baseline --edits_dir runs/main/edits_train \
        --output_dir runs/main/edits_train_prefixes

Edits with these prefixes, `train_editable.py` trains for decode success too.
"""

from hf_editable.cli.commands.mine_prefixes import main


if __name__ == "__main__":
    raise SystemExit(main())
