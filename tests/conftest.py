"""Tiny models, a tokenizer and data that the tests share; everything is offline."""

import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import MarianConfig, PreTrainedTokenizerFast  # noqa: E402

from hf_editable import AutoEditableModelForSeq2SeqLM, EditConfig  # noqa: E402


torch.set_num_threads(1)

NOUNS = {"hund": "dog", "mann": "man", "ball": "ball", "tisch": "table", "wagen": "car", "baum": "tree"}
VERBS = {"sieht": "sees", "kauft": "buys", "malt": "paints", "sucht": "seeks"}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


@pytest.fixture(scope="session")
def tiny_pairs() -> list[dict[str, str]]:
    """24 translation pairs over a vocabulary of two dozen words."""
    return [
        {"source": f"der {noun} {verb} den {noun} .", "target": f"the {NOUNS[noun]} {VERBS[verb]} the {NOUNS[noun]} ."}
        for noun in NOUNS
        for verb in VERBS
    ]


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_pairs) -> PreTrainedTokenizerFast:
    """A fast tokenizer that splits on white space and appends the end token."""
    words = sorted({word for pair in tiny_pairs for text in pair.values() for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(SPECIAL + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=32,
        clean_up_tokenization_spaces=False,
    )


def marian_config(vocabulary_size: int, **overrides) -> MarianConfig:
    """The configuration of a Marian model small enough for finite differences."""
    options = {
        "vocab_size": vocabulary_size,
        "decoder_vocab_size": vocabulary_size,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 32,
        "dropout": 0.1,
        "activation_function": "gelu",
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
        "scale_embedding": True,
        "init_std": 0.3,
        **overrides,
    }
    return MarianConfig(**options)


@pytest.fixture
def tiny_model(tiny_tokenizer):
    """An editable Marian model with random weights, in evaluation mode; a fresh one for every test."""
    torch.manual_seed(0)
    config = marian_config(len(tiny_tokenizer))
    model = AutoEditableModelForSeq2SeqLM.from_config(config, EditConfig(learning_rate=0.01))
    model.generation_config.max_length = 16
    return model.eval()


@pytest.fixture(scope="session")
def tiny_edits(tiny_pairs) -> datasets.Dataset:
    """Six edits with three alternatives each."""
    rows = [
        {
            "source": tiny_pairs[index]["source"],
            "target": tiny_pairs[(index + 5) % 24]["target"],
            "alternatives": [tiny_pairs[(index + step) % 24]["target"] for step in (0, 7, 11)],
        }
        for index in range(0, 24, 4)
    ]
    return datasets.Dataset.from_list(rows)


@pytest.fixture
def tiny_batch(tiny_model, tiny_tokenizer, tiny_pairs, tiny_edits) -> dict[str, torch.Tensor]:
    """Four translation pairs and two edits, as the model's forward takes them."""
    from hf_editable import DataCollatorForEditableSeq2Seq

    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    rows = [tiny_pairs[index] for index in (1, 6, 12, 19)]
    rows[1] = {"source": "der hund sieht .", "target": "the dog sees ."}
    features = [
        {
            "input_ids": tiny_tokenizer(row["source"]).input_ids,
            "labels": tiny_tokenizer(text_target=row["target"]).input_ids,
        }
        for row in rows
    ]
    return {**collator(features), **collator.collate_edits([tiny_edits[0], tiny_edits[1]])}
