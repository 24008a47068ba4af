"""Mining of edits, against one source at a time."""

from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from hf_editable.decoding.generation import frozen
from hf_editable.errors import EditableError
from hf_editable.mining.mined_edits import mine_edits
from hf_editable.modeling.mixin import EditableMixin

from .timing import in_turn, medians, operations
from .workload import END, FIRST_WORD, PAD, START, Workload


# Rounding differs between batches; where two translations are about as likely, it decides which comes first.
LEAST_SAME = 0.9


def measure_mining(workload: Workload, sources: int = 128, one_in: int = 4, repeats: int = 3) -> list[dict[str, Any]]:
    """
    Mining with the sources of about one length together, against two calls of `generate` for each source.

    Args:
        workload ([`Workload`]): the model with random weights; sources have half to one and a half times its length.
        sources (`int`, *optional*, defaults to `128`): how many to mine.
        one_in (`int`, *optional*, defaults to `4`): by length, which of them the plain way mines, as it takes longer.
        repeats (`int`, *optional*, defaults to `3`): times that they are mined each way.

    Raises:
        EditableError: if the most likely translations of more than a tenth of the sources differ.
    """
    model, tokenizer = workload.model(), words(workload.vocab_size)
    texts = sorted(_texts(workload, sources), key=len)
    some = texts[min(one_in, sources) // 2 :: one_in]
    limits = {"num_alternatives": workload.num_alternatives, "max_new_tokens": workload.length}

    def package(texts: list[str]) -> dict[str, tuple[str, str]]:
        edits = mine_edits(model, tokenizer, Dataset.from_dict({"source": texts}), seed=workload.seed, **limits)
        # A target is not among its own alternatives, though it may be the most likely translation.
        return {edit["source"]: (edit["alternatives"][0], edit["target"]) for edit in edits}

    def plain(texts: list[str]) -> dict[str, str]:
        return {text: _one(model, tokenizer, text, **limits) for text in texts}

    found: dict[str, dict[str, Any]] = {}
    few = some[:: max(1, len(some) // 4)]
    disabled = not logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        ways = {
            "package": lambda: found.update(package=package(texts)),
            "plain": lambda: found.update(plain=plain(some)),
        }
        seconds = in_turn(ways, repeats, model.device)
        counted = operations({"package": lambda: package(few), "plain": lambda: plain(few)})
    finally:
        if not disabled:
            logging.enable_progress_bar()
    mined = found["package"]
    same = sum(found["plain"][text] in mined.get(text, ()) for text in some) / len(some)
    if same < LEAST_SAME:
        raise EditableError(f"Both agree on {same:.0%} of the most likely translations only: their times say nothing.")
    times = medians(seconds)
    return [
        {
            "part": "mining",
            "what": f"mining, a source (of {sources}; the plain way: of {len(some)} of them)",
            "package_seconds": times["package"] / sources,
            "plain_seconds": times["plain"] / len(some),
            "ratio": times["plain"] / len(some) / (times["package"] / sources),
            "package_operations": counted["package"] // len(few),
            "plain_operations": counted["plain"] // len(few),
            "same": same,
            "all_seconds": seconds,
        }
    ]


def words(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the numbers of their tokens."""
    special = {"<s>": START, "<pad>": PAD, "</s>": END}
    vocabulary = special | {str(token): token for token in range(FIRST_WORD, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", END)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>")


def _texts(workload: Workload, count: int) -> list[str]:
    generator = torch.Generator().manual_seed(workload.seed)
    half = workload.length // 2
    lengths = (half + torch.randint(0, workload.length, (count,), generator=generator)).clamp(min=1).tolist()
    return [
        " ".join(map(str, torch.randint(FIRST_WORD, workload.vocab_size, (length,), generator=generator).tolist()))
        for length in lengths
    ]


def _one(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    num_alternatives: int,
    max_new_tokens: int,
) -> str:
    """The most likely translation of one source, found together with its alternatives and a sampled target."""
    encoded = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(model.device)
    beams = {"num_beams": num_alternatives, "num_return_sequences": num_alternatives}
    with frozen(model):
        likely = model.generate(**encoded, **beams, do_sample=False, max_new_tokens=max_new_tokens)
        model.generate(**encoded, num_beams=1, do_sample=True, temperature=1.2, top_k=0, max_new_tokens=max_new_tokens)
    return tokenizer.decode(likely[0], skip_special_tokens=True)
