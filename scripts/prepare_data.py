"""Prepare translation data: splits, a tokenizer, and a record of how they were made.

The built-in corpus, offline, in seconds:

    python scripts/prepare_data.py --output_dir data/grammar --vocab_size 2000

IWSLT14 German-English, from the official archive:

    python scripts/prepare_data.py --source iwslt14 --archive de-en.tgz --output_dir data/iwslt14-de-en
"""

from hf_editable.cli.commands.prepare_data import main


if __name__ == "__main__":
    raise SystemExit(main())
