"""Correct single translations of sequence-to-sequence models, and train models so that corrections stay local."""

import importlib
from typing import Any


__version__ = "0.1.0"

_NAMES = {
    "configuration": ["BaseLoss", "EditConfig", "EditOptimizer"],
    "correction.translation_editor": ["JointEditResult", "TranslationEditor", "TranslationEditResult"],
    "data.collator": ["DataCollatorForEditableSeq2Seq"],
    "editors.result": ["EditResult"],
    "errors": [
        "EditRefusedError",
        "EditableError",
        "EditableFileError",
        "EditableImportError",
        "EditableProcessError",
        "EditableTypeError",
        "EditableValueError",
        "NonFiniteEditError",
        "StaleEditError",
    ],
    "evaluation": ["EditReport", "evaluate_edits"],
    "mining.mined_edits": ["mine_edits"],
    "mining.target_prefixes": ["mine_prefixes"],
    "modeling.auto": ["AutoEditableModelForSeq2SeqLM"],
    "modeling.mixin": ["EditableMixin"],
    "modeling.objective": ["EditableSeq2SeqLMOutput"],
    "models.languages": ["set_languages"],
    "patches.patch": ["EditPatch"],
    "training.arguments": ["EditableSeq2SeqTrainingArguments", "TranslationTrainingArguments"],
    "training.editable_trainer": ["EditableSeq2SeqTrainer"],
    "training.translation_trainer": ["TranslationTrainer"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF) + ["editors"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `--help` and the errors do not wait for torch.
    if name == "editors":
        return importlib.import_module(".editors", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
