"""The editor that makes the edits, as options of the commands that edit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import EditableValueError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ...data.references import References


@dataclass(kw_only=True)
class EditorArguments:
    """What makes the edits."""

    editor: str | None = field(
        default=None,
        metadata={
            "help": "Editor that makes the edits: gradient, neurons, kl, rehearsal, ewc, finetune_all, "
            "finetune_edited, lora, cache, or one of another package. Default: the model's own."
        },
    )
    editor_options: list[str] | None = field(
        default=None, metadata={"help": "Settings of that editor, each as NAME=VALUE: weight=5."}
    )
    learning_rate: float | None = field(
        default=None, metadata={"help": "Step size of edits by gradients. Default: the model's."}
    )
    max_steps: int | None = field(default=None, metadata={"help": "The most steps of an edit. Default: the model's."})
    reference_file: str | None = field(
        default=None,
        metadata={
            "help": "Sentences that are to stay as they are, with their translations, for editors that take them "
            "(neurons, kl, rehearsal, ewc): CSV, TSV, JSONL or TMX."
        },
    )

    def overrides(self) -> dict[str, Any]:
        """
        What is given of the settings of edits.

        Raises:
            EditableValueError: if a setting is not of the form NAME=VALUE.
        """
        given = {name: getattr(self, name) for name in ("editor", "learning_rate", "max_steps")}
        given = {name: value for name, value in given.items() if value is not None}
        return given | ({"editor_options": options} if (options := parse_settings(self.editor_options or ())) else {})

    def references(self, tokenizer: "PreTrainedTokenizerBase") -> "References | None":
        """
        The sentences of `reference_file`; `None` if there is no such option.

        Raises:
            EditableFileError: if the file is missing or damaged.
            EditableValueError: if it has no sentences.
        """
        if self.reference_file is None:
            return None
        from ...data.references import References
        from ...operations.corrections.readers import read_corrections

        rows = read_corrections(self.reference_file)
        return References(tokenizer, [{"source": each.source, "target": each.target} for each in rows])


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """
    Settings given as NAME=VALUE; a value is a JSON value, or else text.

    Raises:
        EditableValueError: if one is not of that form.
    """
    settings = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise EditableValueError(f"--editor_options {text}: give settings as NAME=VALUE, such as weight=5.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
