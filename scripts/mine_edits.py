r"""Mine edits with a model: its 32 most likely translations of each source, and a sampled one to prefer to them.

    python scripts/mine_edits.py --model_name_or_path runs/main/baseline --data_dir data/grammar --num_edits 1000 \
        --output_dir runs/main/edits

Corrections of what the model gets wrong, with the references as targets:

    python scripts/mine_edits.py --model_name_or_path runs/main/baseline --data_dir data/grammar --split validation \
        --targets references --output_dir runs/main/corrections

On two GPUs, with the same result:

    accelerate launch --num_processes 2 scripts/mine_edits.py --model_name_or_path runs/main/baseline \
        --data_dir data/grammar --num_edits 1000 --output_dir runs/main/edits
"""

from hf_editable.cli.commands.mine_edits import main


if __name__ == "__main__":
    raise SystemExit(main())
