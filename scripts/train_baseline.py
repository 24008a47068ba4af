r"""Train a translation model from scratch on prepared data.

    python scripts/train_baseline.py --data_dir data/iwslt14-de-en --output_dir models/iwslt14-de-en \
        --max_steps 50000 --max_tokens_per_batch 4096 --save_steps 5000 --eval_strategy steps --eval_steps 5000 \
        --predict_with_generate

On two GPUs, with batches of the same size in all:

    accelerate launch --num_processes 2 scripts/train_baseline.py --data_dir data/iwslt14-de-en \
        --output_dir models/iwslt14-de-en --max_steps 50000 --max_tokens_per_batch 2048 --save_steps 5000
"""

from hf_editable.cli.commands.train_baseline import main


if __name__ == "__main__":
    raise SystemExit(main())
