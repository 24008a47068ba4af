"""The card of a patch."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .cards import CITATION, METHOD, escaped, is_repo_id, one_line, quoted, table


def patch_card(facts: Mapping[str, Any], name: str) -> ModelCard:
    """
    The card of an [`EditPatch`].

    Args:
        facts (`dict[str, Any]`):
            what is known of it, by what the card calls it; `base model`, `base revision`, `source` and `translation`
            among them.
        name (`str`): what to load it by: its repository on the Hub, or its folder.
    """
    # A revision is known only of what came from the Hub; a folder's name says nothing to others.
    revision = facts["base revision"]
    base = facts["base model"] if revision and is_repo_id(facts["base model"] or "/") else None
    data = ModelCardData(
        library_name="hf_editable", pipeline_tag="translation", tags=["model-editing"], base_model=base
    )
    load = f"AutoEditableModelForSeq2SeqLM.from_pretrained({quoted(base or '')}, revision={quoted(revision or '')})"
    known = {key: value for key, value in facts.items() if value is not None and key not in ("source", "translation")}
    return ModelCard(f"""---
{data.to_yaml()}
---

# {escaped(name.rsplit("/", 1)[-1])}

The correction of one translation, made with hf_editable, which grew from {METHOD}.

````text
source:      {one_line(facts["source"])}
translation: {one_line(facts["translation"])}
````

The edit holds if l_e after it is at most 0: then the translation outranks every alternative it was tried against. It
fits one base model only, whose tensors it changes; any other is refused.

```python
from hf_editable import AutoEditableModelForSeq2SeqLM, EditPatch

model = {load if base else "...  # the model that the patch was made from"}
patch = EditPatch.from_pretrained({quoted(name)})
patch.apply(model)  # patch.revert(model) takes it back
```

{table(("fact", "value"), known)}

## Citation

{CITATION}
""")
