"""Data for translation models: the built-in corpus, IWSLT14, any parallel text, and tokenizers trained on them."""

from .corpus import generate_corpus
from .iwslt14 import clean_iwslt14, read_iwslt14
from .parallel import MosesForm, hold_out, load_translations, prepare_text, read_parallel
from .tokenization import encoding_agreement, train_tokenizer


__all__ = [
    "MosesForm",
    "clean_iwslt14",
    "encoding_agreement",
    "generate_corpus",
    "hold_out",
    "load_translations",
    "prepare_text",
    "read_iwslt14",
    "read_parallel",
    "train_tokenizer",
]
