"""What the commands read: prepared data, mined edits, checkpoints. Each failure becomes one clear error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import EditableError, EditableFileError, EditableValueError
from ...runs.files import settle


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase

    from ...modeling.mixin import EditableMixin


@contextmanager
def loading(what: str, place: str) -> Iterator[None]:
    """Turn what libraries raise about a missing or damaged `place` into an `EditableFileError`."""
    try:
        settle(place)
        yield
    except EditableError:
        raise
    except (OSError, ValueError) as error:
        raise EditableFileError(f"Cannot load {what} {place!r}: {error}") from error


def load_tokenizer(place: str) -> "PreTrainedTokenizerBase":
    """
    The tokenizer of a checkpoint.

    Raises:
        EditableFileError: if there is none.
    """
    from transformers import AutoTokenizer

    with loading("the tokenizer of", place):
        return AutoTokenizer.from_pretrained(place)


def load_model(place: str) -> "EditableMixin":
    """
    A checkpoint as an editable model in evaluation mode, on the GPU if there is one: each process on its own.

    Raises:
        EditableFileError: if it cannot be loaded.
        EditableTypeError: if it is not an encoder-decoder.
    """
    import torch

    from ...modeling.auto import AutoEditableModelForSeq2SeqLM
    from ...runs.processes import process_state

    with loading("the model", place):
        model = AutoEditableModelForSeq2SeqLM.from_pretrained(place).eval()
    state = process_state()
    return model.to(state.device if state else "cuda" if torch.cuda.is_available() else "cpu")


def load_data(data_dir: str, split: str) -> "DatasetDict":
    """
    Prepared data with, at least, pairs in one split.

    Raises:
        EditableFileError: if there is no such data.
        EditableValueError: if the split is missing or empty.
    """
    from ...data.parallel import load_translations

    data = load_translations(data_dir)
    if split not in data or not len(data[split]):
        sizes = {name: len(rows) for name, rows in data.items()}
        raise EditableValueError(f"{data_dir!r} has no pairs in a split {split!r}. Its splits and sizes are {sizes}.")
    return data


def load_edits(edits_dir: str) -> "Dataset":
    """
    Mined edits; of a dataset with splits, `train`.

    Raises:
        EditableFileError: if there is no such dataset.
        EditableValueError: if it has splits but none named `train`, or lacks a column.
    """
    from datasets import DatasetDict, load_from_disk

    with loading("the mined edits", edits_dir):
        edits = load_from_disk(edits_dir)
    if isinstance(edits, DatasetDict):
        if "train" not in edits:
            raise EditableValueError(f"{edits_dir!r} has the splits {sorted(edits)}; it needs one named 'train'.")
        edits = edits["train"]
    if missing := {"source", "target", "alternatives"} - set(edits.column_names):
        raise EditableValueError(f"{edits_dir!r} lacks the columns {sorted(missing)}. Give a folder of mined edits.")
    return edits
