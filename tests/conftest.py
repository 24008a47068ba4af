"""Tiny models, a tokenizer and data that the tests share; everything is offline."""

import copy
import os
import sys
import threading
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import tqdm.auto  # noqa: E402
from strict import (  # noqa: E402, F401
    no_warnings_of_our_making,
    pytest_make_collect_report,
    pytest_runtest_makereport,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import MarianConfig, PreTrainedTokenizerFast  # noqa: E402

from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    EditableSeq2SeqTrainer,
    EditableSeq2SeqTrainingArguments,
    EditConfig,
)


torch.set_num_threads(1)
# Developers' tools are not in the package.
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "developer"))


def _free_progress_bars():
    """A forked process has the lock of progress bars as it was, but not the thread that may have held it."""
    for bar in (tqdm.std.tqdm, tqdm.auto.tqdm):
        bar.set_lock(threading.RLock())


os.register_at_fork(after_in_child=_free_progress_bars)

# With the lowest versions too, these are run: what calls transformers and torch in every way there is.
QUICK = (
    *("test_app_guard", "test_beam_search", "test_decoding", "test_families", "test_languages", "test_modeling"),
    *("test_patches", "test_patch_files", "test_private_names", "test_tail", "test_trainer"),
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in QUICK:
            item.add_marker("quick")


NOUNS = {"hund": "dog", "mann": "man", "ball": "ball", "tisch": "table", "wagen": "car", "baum": "tree"}
VERBS = {"sieht": "sees", "kauft": "buys", "malt": "paints", "sucht": "seeks"}
TRAINING = {
    "per_device_train_batch_size": 4,
    "max_steps": 4,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "seed": 3,
}
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


@pytest.fixture(scope="session")
def make_tiny_model(tiny_tokenizer):
    """Makes editable Marian models with the same random weights, in evaluation mode."""

    def make():
        torch.manual_seed(0)
        config = marian_config(len(tiny_tokenizer))
        model = AutoEditableModelForSeq2SeqLM.from_config(config, EditConfig(learning_rate=0.01))
        model.generation_config.max_length = 16
        return model.eval()

    return make


@pytest.fixture
def tiny_model(make_tiny_model):
    """A model of its own for every test."""
    return make_tiny_model()


@pytest.fixture(scope="session")
def taught_weights(make_tiny_model, tiny_tokenizer, tiny_pairs) -> dict[str, torch.Tensor]:
    """Weights of a tiny model that knows some of the pairs: its edits need few rounds, those of a random one many."""
    model = make_tiny_model()
    texts = {name: [pair[name] for pair in tiny_pairs] for name in ("source", "target")}
    batch = tiny_tokenizer(texts["source"], return_tensors="pt")
    labels = tiny_tokenizer(text_target=texts["target"], return_tensors="pt").input_ids
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss.backward()
        optimizer.step()
    return model.state_dict()


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


@pytest.fixture(scope="session")
def rows(tiny_tokenizer, tiny_pairs) -> datasets.Dataset:
    """The pairs as training takes them."""
    return datasets.Dataset.from_list(
        [
            dict(tiny_tokenizer(pair["source"]), labels=tiny_tokenizer(text_target=pair["target"])["input_ids"])
            for pair in tiny_pairs
        ]
    )


@pytest.fixture
def make_trainer(tmp_path, tiny_model, tiny_tokenizer, rows, tiny_edits):
    """Trainers of their own copy of one model."""

    def make(model=None, objects=None, **settings):
        args = EditableSeq2SeqTrainingArguments(output_dir=str(tmp_path / "run"), **{**TRAINING, **settings})
        objects = {
            "edit_dataset": tiny_edits,
            "train_dataset": rows,
            "processing_class": tiny_tokenizer,
            **(objects or {}),
        }
        return EditableSeq2SeqTrainer(copy.deepcopy(model or tiny_model), args, **objects)

    return make


def without_dropout(model):
    """The model, with no dropout in it."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model
