"""The card of a model, with what edits of it came to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedModel

from ..configuration import EditConfig
from ..runs.provenance import installed_versions
from .cards import (
    CARD_NAME,
    CITATION,
    MARK,
    METHOD,
    by_a_person,
    changed_values,
    escaped,
    is_repo_id,
    quoted,
    set_results,
    set_section,
    table,
    write_card,
)


class MeasuredEdits(Protocol):
    """What edits of a model came to, such as an [`EditReport`]."""

    def card(self) -> Mapping[str, Any]:
        """What `add_results` puts into a card."""


def model_card(
    model: PreTrainedModel,
    name: str,
    *,
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    **metadata: Any,
) -> ModelCard:
    """
    The card of a model.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model, editable or not.
        name (`str`): what to load it by: its repository on the Hub, or its folder.
        results (`dict[str, Any]`, *optional*): measured numbers, as `EditReport.card` gives them.
        title (`str`, *optional*): heading; the last part of `name` by default.
        metadata (*optional*): of [`~huggingface_hub.ModelCardData`]: `language`, `license`, `datasets`, `tags`, …

    Returns:
        [`~huggingface_hub.ModelCard`].

    Example:

    ```python
    >>> from hf_editable.hub.model_card import model_card

    >>> card = model_card(model, "user/name", results=report.card(), language=["de", "en"])  # doctest: +SKIP
    >>> card.save("folder/README.md")  # doctest: +SKIP
    ```
    """
    # Names of the Hub only: a folder's name says nothing to others.
    loaded = model.config._name_or_path
    on_hub = getattr(model.config, "_commit_hash", None) is not None and is_repo_id(loaded) and loaded != name
    data = ModelCardData(
        **{
            "library_name": "transformers",
            "pipeline_tag": "translation",
            "base_model": loaded if on_hub else None,
            "model_name": title or name.rsplit("/", 1)[-1],
            **metadata,
            "tags": ["translation", "model-editing", "hf_editable", *metadata.get("tags", ())],
        }
    )
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n{_frame(data.model_name, name)}")
    if (config := getattr(model, "edit_config", None)) is not None:
        set_section(card, "Edits", _edit_section(model, config))
    if results is not None:
        add_results(card, results)
    return card


def _frame(title: str, name: str) -> str:
    packages = installed_versions(("transformers", "torch", "datasets", "tokenizers"))
    versions = "\n".join(f"- {package} {version}" for package, version in packages.items())
    return f"""
# {escaped(title)}

An encoder-decoder translation model whose single translations can be corrected with hf_editable, by the method of
{METHOD}. It is a plain checkpoint: `AutoModelForSeq2SeqLM` of transformers loads it too.

```python
from transformers import AutoTokenizer
from hf_editable import AutoEditableModelForSeq2SeqLM, TranslationEditor

model = AutoEditableModelForSeq2SeqLM.from_pretrained({quoted(name)}).eval()
editor = TranslationEditor(model, AutoTokenizer.from_pretrained({quoted(name)}))
result = editor.edit("a source sentence", "the translation it should have")
result.patch.apply(model)  # result.patch.revert(model) takes it back
```

## Versions

{versions}

## Citation

{CITATION}
"""


def _edit_section(model: PreTrainedModel, config: EditConfig) -> str:
    changed = changed_values(config.to_dict(), EditConfig().to_dict())
    text = f"Scores of translations are compared with length penalty λ = {model.edit_length_penalty():g}."
    if not changed:
        return f"{text} All else is as in `EditConfig()`."
    return f"{text} What is not as in `EditConfig()`:\n\n{table(('setting', 'value'), changed)}"


def add_results(card: ModelCard, results: Mapping[str, Any], dataset_name: str | None = None) -> None:
    """
    Add what edits of the model came to, in place of earlier results.

    Args:
        card ([`~huggingface_hub.ModelCard`]): the card, which is changed.
        results (`dict[str, Any]`):
            `metrics`, name and value by type, for the `model-index`; `text`, in Markdown; and `dataset_name`.
        dataset_name (`str`, *optional*): what to call the test set instead.
    """
    place = {
        "dataset_type": "custom",
        "dataset_name": dataset_name or results["dataset_name"],
        "dataset_split": "test",
    }
    set_results(card, place, results["metrics"])
    set_section(card, "Edits, measured", results["text"])


def update_card(
    model: PreTrainedModel, folder: str | os.PathLike, results: Mapping[str, Any], dataset_name: str | None = None
) -> bool:
    """
    Put results into the card in a model's folder; what else a card of ours says stays.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model, for a card where there is none.
        folder (`str`): its folder.
        results (`dict[str, Any]`): what was measured on this model; see `add_results`.
        dataset_name (`str`, *optional*): what to call the test set.

    Returns:
        `bool`: `False` if there is a card that a person wrote, which is kept as it is.
    """
    path = Path(folder) / CARD_NAME
    if not path.exists():
        card = model_card(model, path.parent.resolve().name)
    elif by_a_person(content := path.read_bytes()):
        return False
    else:
        card = ModelCard(MARK.sub("", content.decode().replace("\r\n", "\n"), count=1))
    add_results(card, results, dataset_name)
    return write_card(card, folder)
