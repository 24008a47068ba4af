"""What a soak works on: a tiny model that is trained in a second, the sentences it knows, and a disk that fills up."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


NOUNS = {"hund": "dog", "mann": "man", "ball": "ball", "tisch": "table", "wagen": "car", "baum": "tree"}
VERBS = {"sieht": "sees", "kauft": "buys", "malt": "paints", "sucht": "seeks", "hebt": "lifts"}
BEAMS = 2


def sentences() -> list[tuple[str, str]]:
    """All sources that the model knows, with their translations."""
    return [(f"der {noun} {verb}", f"the {NOUNS[noun]} {VERBS[verb]}") for noun in NOUNS for verb in VERBS]


def corrections(draw: random.Random, count: int, among: list[str] | None = None) -> list[tuple[str, str]]:
    """As many different sources, of those given if there are so many, each to be translated with another word."""
    known = dict(sentences())
    sources = draw.sample(among if among and len(among) >= count else list(known), count)
    others = {source: [each for each in known.values() if _differ(each, known[source]) == 1] for source in sources}
    return [(source, draw.choice(others[source])) for source in sources]


def _differ(one: str, other: str) -> int:
    """How many words of two sentences of the same length differ."""
    return sum(left != right for left, right in zip(one.split(), other.split(), strict=True))


def build_model(folder: Path) -> None:
    """Train the model on its sentences, and save it as an editable checkpoint with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import MarianConfig, PreTrainedTokenizerFast

    from hf_editable import AutoEditableModelForSeq2SeqLM, EditConfig

    pairs = sentences()
    words = sorted({word for pair in pairs for text in pair for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}
    split = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    split.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=split, model_max_length=24, **names)
    sizes = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in (
        ("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))}  # fmt: skip
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(vocabulary), d_model=48, max_position_embeddings=32, dropout=0.0, init_std=0.3,
        activation_function="gelu", forced_eos_token_id=None, **sizes, **ids,
    )  # fmt: skip
    model = AutoEditableModelForSeq2SeqLM.from_config(
        config, EditConfig(learning_rate=0.002, num_alternatives=4, max_steps=10)
    )
    model.generation_config.max_length, model.generation_config.num_beams = 16, BEAMS
    batch = tokenizer([source for source, _ in pairs], return_tensors="pt")
    labels = tokenizer([target for _, target in pairs], return_tensors="pt").input_ids
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=0.01)
    for _ in range(100):
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Disk:
    """
    The file system that the store is on.

    Args:
        folder (`Path`): where it is.
        mounted (`bool`): whether it is a file system of its own, which can be full and can be read-only.
    """

    def __init__(self, folder: Path, mounted: bool):
        self.folder, self.mounted = folder, mounted

    @contextmanager
    def full(self, left: int) -> Iterator[None]:
        """So many bytes are left, in the block."""
        filler = self.folder / "filler"
        try:
            with open(filler, "wb") as file:
                free = shutil.disk_usage(self.folder).free
                file.write(bytes(max(0, free - left)))
            yield
        finally:
            filler.unlink()

    @property
    def can_be_read_only(self) -> bool:
        """Whether `read_only` holds for this user, who may be one whom rights do not bind."""
        return self.mounted or os.geteuid() != 0

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written, in the block."""
        self._allow(False)
        try:
            yield
        finally:
            self._allow(True)

    def _allow(self, writing: bool) -> None:
        place = str(self.folder)
        mount = ["mount", "-o", f"remount,{'rw' if writing else 'ro'}", place]
        subprocess.run(mount if self.mounted else ["chmod", "-R", "u+w" if writing else "a-w", place], check=True)


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """A small file system in memory, where the user may mount one; else a plain folder."""
    folder.mkdir()
    options = f"size={megabytes}m,mode=755"
    command = ["mount", "-t", "tmpfs", "-o", options, "soak", str(folder)]
    # A size of 0 would be half of the memory.
    done = subprocess.run(command, capture_output=True) if megabytes and shutil.which("mount") else None
    mounted = done is not None and done.returncode == 0
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
