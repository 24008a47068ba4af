"""Correct one translation, show it before and after, and save the edit."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import EditableValueError
from . import parse_arguments, run_main
from .languages import LanguageArguments
from .loading import load_data, load_model, load_tokenizer


if TYPE_CHECKING:
    from ..translation import TranslationEditor


@dataclass
class EditTranslationArguments:
    """What to correct, and how."""

    model_name_or_path: str = field(metadata={"help": "Model to correct, editable or not: a folder, or a Hub name."})
    source: str | None = field(default=None, metadata={"help": "The sentence that is translated wrongly."})
    target: str | None = field(default=None, metadata={"help": "The translation it should have."})
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Instead of a source and a target: folder of prepared data, whose first test sentence that the "
            "model translates wrongly is corrected to its reference."
        },
    )
    alternatives: list[str] | None = field(
        default=None,
        metadata={"help": "Translations to outrank. Default: the model's own most likely ones."},
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size of the translations that are shown."})
    learning_rate: float | None = field(
        default=None, metadata={"help": "Step size of the edit. Default: the model's."}
    )
    max_steps: int | None = field(default=None, metadata={"help": "The most steps of the edit. Default: the model's."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder to save the edit to, as an EditPatch."})


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 if the edit succeeded, 1 if it did not within its steps, 2 on bad input."""
    outcome: list[bool] = []
    code = run_main(lambda arguments: outcome.append(_edit(arguments)), argv)
    return code if code else int(not outcome[0])


def _mistake(arguments: EditTranslationArguments, editor: "TranslationEditor") -> tuple[str, str, str]:
    """Source, wanted translation, and the model's translation."""
    if arguments.data_dir is None:
        if arguments.source is None or arguments.target is None:
            raise EditableValueError("Give --source and --target, or --data_dir.")
        return arguments.source, arguments.target, editor.translate([arguments.source])[0]
    pairs = load_data(arguments.data_dir, "test")["test"]
    for start in range(0, len(pairs), editor.batch_size):
        batch = pairs[start : start + editor.batch_size]
        translations = editor.translate(batch["source"])
        for source, target, translation in zip(batch["source"], batch["target"], translations, strict=True):
            if translation.strip() != target.strip():
                return source, target, translation
    raise EditableValueError(f"The model translates every test sentence of {arguments.data_dir} like its reference.")


def _edit(argv: list[str] | None) -> bool:
    from .. import TranslationEditor
    from ..files import check_folder

    arguments, languages = parse_arguments([EditTranslationArguments, LanguageArguments], argv, __doc__)
    if arguments.output_dir is not None:
        check_folder(arguments.output_dir)
    tokenizer, model = load_tokenizer(arguments.model_name_or_path), load_model(arguments.model_name_or_path)
    languages.apply(model, tokenizer)
    overrides = {name: getattr(arguments, name) for name in ("learning_rate", "max_steps")}
    model.edit_config = model.edit_config.replace(**{k: value for k, value in overrides.items() if value is not None})
    editor = TranslationEditor(model, tokenizer, num_beams=arguments.num_beams)
    source, target, before = _mistake(arguments, editor)
    result = editor.edit(source, target, arguments.alternatives)
    print(f"source: {source}\nwanted: {target}\nbefore: {before}\nafter:  {result.translation}")
    outcome = "holds" if result.success else "does not hold"
    print(f"The constraint {outcome} after {result.steps} steps: l_e {result.initial_loss:.3f} → {result.loss:.3f}.")
    if arguments.output_dir is not None:
        result.patch.save_pretrained(arguments.output_dir)
        print(f"The edit is saved in {arguments.output_dir}")
    return result.success
