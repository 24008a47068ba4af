"""How edits are mined."""

import os
from dataclasses import dataclass

from transformers.utils import ExplicitEnum

from ..checks import BEAMS, check_count
from ..configuration import choice
from ..errors import EditableValueError


class EditTargets(ExplicitEnum):
    """What mined edits make the model say: a translation that it samples (paper, section 4.3), or the reference."""

    SAMPLED = "sampled"
    REFERENCES = "references"


@dataclass(frozen=True)
class MiningSettings:
    """
    How edits are mined. [`mine_edits`] takes these fields by name too.

    Args:
        num_alternatives (`int`, *optional*, defaults to `32`): translations of each source to outrank (the paper's k).
        temperature (`float`, *optional*, defaults to `1.2`): of a sampled target, over the whole vocabulary.
        batch_size (`int`, *optional*, defaults to `128`):
            Sources encoded and sampled from at once. Beams are searched for as many of them at once as pays.
        num_edits (`int`, *optional*):
            How many sources to mine, chosen at random; `None` takes all. A few may give no edit.
        max_new_tokens (`int`, *optional*):
            The most tokens of a translation; `None` takes the model's generation settings, or 256 without any.
        seed (`int`, *optional*, defaults to `0`): of the choice of sources, and of each source's sampled target.
        output_dir (`str`, *optional*):
            Folder for the result, in the form of `Dataset.save_to_disk`, and for what is finished meanwhile: a second
            call with the same arguments goes on where the first one ended, or returns its result.
        source_column (`str`, *optional*, defaults to `"source"`): the column that holds the sources.
        targets (`str`, *optional*, defaults to `"sampled"`):
            `"sampled"` samples each target from the model, `"references"` takes them from the dataset.
        target_column (`str`, *optional*, defaults to `"target"`): the column that holds the references.

    Raises:
        EditableValueError: if a number is out of range, or there are no such targets.

    Example:

    ```python
    >>> from hf_editable import mine_edits

    >>> edits = mine_edits(model, tokenizer, data["train"], num_edits=1000, output_dir="edits")  # doctest: +SKIP
    >>> edits.column_names  # doctest: +SKIP
    ['source', 'target', 'alternatives']
    ```
    """

    num_alternatives: int = 32
    temperature: float = 1.2
    batch_size: int = 128
    num_edits: int | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    output_dir: str | os.PathLike | None = None
    source_column: str = "source"
    targets: str = "sampled"
    target_column: str = "target"

    def __post_init__(self):
        BEAMS.check("num_alternatives=", self.num_alternatives)
        check_count("batch_size", self.batch_size)
        check_count("seed", self.seed, least=0)
        if not self.temperature > 0:
            raise EditableValueError(f"temperature={self.temperature!r}: it must be above 0, such as 1.2.")
        choice(EditTargets, "targets", self.targets)
