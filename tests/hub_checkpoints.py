"""Tiny trained checkpoints of the kinds that users have, with the files that such repositories on the Hub have."""

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    M2M100Config,
    MBartConfig,
    NllbTokenizer,
    PreTrainedConfig,
    T5Config,
    T5Tokenizer,
)
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M_CODES
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART_CODES
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES

from conftest import marian_config
from hf_editable import DataCollatorForEditableSeq2Seq, set_languages


# Raw text: upper case, umlauts, punctuation.
PAIRS = [
    ("Der Hund schläft.", "The dog sleeps."),
    ("Der Hund rennt.", "The dog runs."),
    ("Die Katze schläft.", "The cat sleeps."),
    ("Die Katze rennt.", "The cat runs."),
    ("Ein Mädchen singt.", "A girl sings."),
    ("Ein Mädchen rennt.", "A girl runs."),
    ("Der Bär tanzt!", "The bear dances!"),
    ("Die Katze tanzt!", "The cat dances!"),
    ("Er hat einen Vogel.", "He has a bird."),
    ("Er hat einen Hund.", "He has a dog."),
    ("Er ist verrückt.", "He is crazy."),
    ("Ist er müde?", "Is he tired?"),
]
SMALL = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.1,
    "max_position_embeddings": 64, "scale_embedding": True,
}  # fmt: skip
FAIRSEQ = {
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    "activation_function": "relu", "init_std": 0.05, "encoder_layerdrop": 0.05, "decoder_layerdrop": 0.05,
}  # fmt: skip
MADE_UP_WORDS = 8  # M2M100's embeddings have as many rows that no token has


def pieces(texts: list[str], kind: str, **options: Any) -> bytes:
    """A sentencepiece model of texts, every word of which it knows."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=90, hard_vocab_limit=False, model_type=kind,
        character_coverage=1.0, minloglevel=2, num_threads=1, **options,
    )  # fmt: skip
    return model.getvalue()


def names_of(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(len(processor))]


def write(folder: Path, name: str, content: Any) -> None:
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def texts() -> tuple[list[str], list[str]]:
    """The sentences of either language, often enough that whole words are pieces."""
    return [source for source, _ in PAIRS] * 4, [target for _, target in PAIRS] * 4


def opus_files(folder: Path) -> None:
    source, target = (pieces(side, "unigram") for side in texts())
    words = ["</s>", "<unk>", *(name for model in (target, source) for name in names_of(model)[3:]), "<pad>"]
    write(folder, "source.spm", source)
    write(folder, "target.spm", target)
    write(folder, "vocab.json", {word: index for index, word in enumerate(dict.fromkeys(words))})
    write(folder, "tokenizer_config.json", {"source_lang": "de", "target_lang": "en", "model_max_length": 64})


def opus_config(vocabulary: int) -> PreTrainedConfig:
    pad = vocabulary - 1
    return marian_config(
        vocabulary, **SMALL, activation_function="swish", bos_token_id=0, eos_token_id=0, pad_token_id=pad,
        decoder_start_token_id=pad, forced_eos_token_id=0, init_std=0.05, share_encoder_decoder_embeddings=True,
    )  # fmt: skip


def fairseq_files(folder: Path, kind: str, tokenizer_class: str, special: list[str]) -> None:
    """What NLLB, M2M100 and mBART-50 have in common."""
    both = [text for side in texts() for text in side]
    write(folder, "sentencepiece.bpe.model", pieces(both, kind))
    marks = {"eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    marks |= {"bos_token": "<s>", "cls_token": "<s>"}
    named = {**marks, "additional_special_tokens": special}
    more = {"src_lang": None, "tgt_lang": None, "tokenizer_class": tokenizer_class, "model_max_length": 64}
    write(folder, "special_tokens_map.json", named)
    write(folder, "tokenizer_config.json", {**marks, **more})


def nllb_files(folder: Path) -> None:
    fairseq_files(folder, "bpe", "NllbTokenizer", NLLB_CODES)
    NllbTokenizer.from_pretrained(folder)._tokenizer.save(str(folder / "tokenizer.json"))


def m2m100_files(folder: Path) -> None:
    fairseq_files(folder, "bpe", "M2M100Tokenizer", [f"__{code}__" for code in M2M_CODES["m2m100"]])
    words = ["<s>", "<pad>", "</s>", "<unk>", *names_of((folder / "sentencepiece.bpe.model").read_bytes())[3:]]
    write(folder, "vocab.json", {word: index for index, word in enumerate(words)})


def t5_files(folder: Path, is_fast: bool) -> None:
    both = [text for side in texts() for text in side]
    model = pieces([*both, "translate German to English: "], "unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write(folder, "spiece.model", model)
    marks = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 100}
    more = {"additional_special_tokens": [f"<extra_id_{index}>" for index in range(100)], "model_max_length": 512}
    write(folder, "tokenizer_config.json", {**marks, **more, "tokenizer_class": "T5Tokenizer"})
    if is_fast:
        T5Tokenizer.from_pretrained(folder)._tokenizer.save(str(folder / "tokenizer.json"))


def fairseq_config(kind: type[PreTrainedConfig], vocabulary: int, **options: Any) -> PreTrainedConfig:
    return kind(vocab_size=vocabulary, **{**SMALL, **FAIRSEQ, **options})


def t5_config(vocabulary: int, **options: Any) -> PreTrainedConfig:
    small = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "bos_token_id": None}
    return T5Config(vocab_size=vocabulary, **small, **tokens, n_positions=512, **options)


@dataclass(frozen=True)
class Kind:
    """
    A kind of checkpoint.

    Args:
        files: writes the tokenizer's files into a folder.
        config: the model's configuration, by the size of its vocabulary.
        settings: what is in generation_config.json beside the special tokens.
        languages: source and target, as the tokenizer spells them.
        prefix: what sources begin with.
        unused: rows of the embeddings that no token has.
    """

    files: Callable[[Path], None]
    config: Callable[[int], PreTrainedConfig]
    settings: dict[str, Any]
    languages: tuple[str, str] | None = None
    prefix: str = ""
    unused: int = 0


SMALL_WEIGHTS = {"initializer_factor": 0.2}  # or translations by so small a model do not end
T5_PREFIX = "translate German to English: "
MBART_SETTINGS = {"early_stopping": True, "forced_eos_token_id": 2, "max_length": 32, "num_beams": 5}
KINDS = {
    "opus-mt": Kind(
        opus_files, opus_config,
        {"forced_eos_token_id": 0, "max_length": 32, "num_beams": 6, "renormalize_logits": True},
    ),
    "nllb": Kind(
        nllb_files, functools.partial(fairseq_config, M2M100Config, tokenizer_class="NllbTokenizer"),
        {"max_length": 32}, ("deu_Latn", "eng_Latn"),
    ),
    "m2m100": Kind(
        m2m100_files, functools.partial(fairseq_config, M2M100Config),
        {"early_stopping": True, "max_length": 32, "num_beams": 5}, ("de", "en"), unused=MADE_UP_WORDS,
    ),
    "mbart-50": Kind(
        lambda folder: fairseq_files(folder, "unigram", "MBart50Tokenizer", MBART_CODES),
        functools.partial(fairseq_config, MBartConfig, tokenizer_class="MBart50Tokenizer", forced_eos_token_id=2),
        MBART_SETTINGS, ("de_DE", "en_XX"),
    ),
    "t5": Kind(functools.partial(t5_files, is_fast=True), t5_config, {}, prefix=T5_PREFIX, unused=28),
    "flan-t5": Kind(
        functools.partial(t5_files, is_fast=False),
        functools.partial(t5_config, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **SMALL_WEIGHTS),
        {}, prefix=T5_PREFIX, unused=28,
    ),
}  # fmt: skip


def build(name: str, folder: Path, steps: int = 100) -> Path:
    """Write a checkpoint that has learned the pairs."""
    kind = KINDS[name]
    folder.mkdir(parents=True)
    kind.files(folder)
    write(folder, "config.json", kind.config(8).to_dict())  # by which the tokenizer's class is found
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = kind.config(len(tokenizer) + kind.unused)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if name == "opus-mt":
        model.get_input_embeddings().weight.data[config.pad_token_id] = 0.0
        model.generation_config.bad_words_ids = [[config.pad_token_id]]
    model.generation_config.update(**kind.settings)
    model.save_pretrained(folder)
    if kind.languages:
        set_languages(model, tokenizer, *kind.languages)
    learn(model, tokenizer, kind, steps)
    learned = model.state_dict()
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)  # the settings without the languages
    model.load_state_dict(learned)
    model.save_pretrained(folder)
    return folder


def learn(model: torch.nn.Module, tokenizer: Any, kind: Kind, steps: int) -> None:
    """Train on the pairs."""
    collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
    sources = collator.encode("source", [kind.prefix + source for source, _ in PAIRS])
    targets = collator.encode("target", [target for _, target in PAIRS])
    batch = collator(
        [{"input_ids": source, "labels": target} for source, target in zip(sources, targets, strict=True)]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.eval()
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
