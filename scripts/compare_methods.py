r"""Compare ways to edit one model: its editor, with penalties, elastic weight consolidation, fine-tuning, a table.

    python scripts/compare_methods.py --model_name_or_path runs/main/baseline --edits_dir runs/main/edits \
        --data_dir data/grammar --num_edits 100 --output_dir runs/main/methods

`--methods edit finetune_all lora` chooses; lora needs `pip install peft`. `accelerate launch --num_processes 2` before
the script deals the edits out to two GPUs, with the same result.
"""

from hf_editable.cli.commands.compare_methods import main


if __name__ == "__main__":
    raise SystemExit(main())
