"""Correct one translation of a model and save the edit.

python scripts/edit_translation.py --model_name_or_path runs/main/editable --output_dir runs/main/patch \
    --source "der hund schläft." --target "the dog is asleep."
"""

from hf_editable.cli.commands.edit_translation import main


if __name__ == "__main__":
    raise SystemExit(main())
