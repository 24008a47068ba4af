r"""Fine-tune a translation model for editability, on prepared data and mined edits.

    python scripts/train_editable.py --model_name_or_path models/iwslt14-de-en --data_dir data/iwslt14-de-en \
        --edits_dir edits/iwslt14-de-en --output_dir models/iwslt14-de-en-editable --max_tokens_per_batch 4096 \
        --c_edit 1 --c_loc 10 --dropout 0 --learning_rate 1e-4 --max_steps 3000 --save_steps 500 --logging_steps 50

On two GPUs, with batches of the same size in all and one edit on each:

    accelerate launch --num_processes 2 scripts/train_editable.py --model_name_or_path models/iwslt14-de-en \
        --data_dir data/iwslt14-de-en --edits_dir edits/iwslt14-de-en --output_dir models/iwslt14-de-en-editable \
        --max_tokens_per_batch 2048 --c_edit 1 --c_loc 10 --dropout 0 --learning_rate 1e-4 --max_steps 3000
"""

from hf_editable.cli.commands.train_editable import main


if __name__ == "__main__":
    raise SystemExit(main())
