"""Correct one translation, show it before and after, and save the edit.

hf-editable edit --model_name_or_path model --source "Er hat einen Vogel." --target "He is crazy." --output_dir patch
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EditableError, EditableValueError, StaleEditError
from ..shared.editor_options import EditorArguments
from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data
from ..shared.operating import GateArguments, describe_impact, load_text_editor, open_store
from ..shared.printing import inline
from ..shared.running import DONE, REFUSED, parse_arguments, run_main, tell


if TYPE_CHECKING:
    from ...correction.translation_editor import TranslationEditor, TranslationEditResult
    from ...operations.gate.impact import ImpactGate
    from ...operations.gate.report import ImpactReport
    from ...operations.store.edit_store import EditStore
    from ...patches.patch import EditPatch


@dataclass(kw_only=True)
class EditTranslationArguments(EditorArguments):
    """What to correct, and how."""

    model_name_or_path: str = field(metadata={"help": "Model to correct, editable or not: a folder, or a Hub name."})
    source: str | None = field(default=None, metadata={"help": "The sentence that is translated wrongly."})
    target: str | None = field(default=None, metadata={"help": "The translation it should have."})
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of prepared data, instead of --source and --target: the first test sentence that the "
            "model translates otherwise than its reference is corrected to it."
        },
    )
    alternatives: list[str] | None = field(
        default=None,
        metadata={
            "help": "Translations that the target has to outrank. Default: those that the model finds most likely."
        },
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size of the translations that are shown."})
    max_steps: int | None = field(
        default=None, metadata={"help": "The most steps of each round of the edit. Default: the model's."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder to save the edit in, as a patch."})
    store: str | None = field(
        default=None,
        metadata={"help": "Folder of the store that the edit is added to; it is made if there is none."},
    )
    force: bool = field(
        default=False,
        metadata={"help": "Save the edit even if the model does not say the target, or a limit is passed."},
    )


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


def _edit(argv: list[str] | None) -> int:
    from ...patches.application import take_back
    from ...runs.files import check_folder

    kinds = [EditTranslationArguments, GateArguments, LanguageArguments]
    arguments, limits, languages = parse_arguments(kinds, argv, __doc__)
    if arguments.store is not None:
        check_folder(arguments.store)
    editor = load_text_editor(arguments.model_name_or_path, languages, arguments.num_beams, arguments)
    gate = limits.gate(editor)
    # A finished edit that the store has not taken.
    left: EditPatch | None = None
    try:
        while True:
            store = None if arguments.store is None else open_store(arguments.store, editor)
            result, impact = _make(arguments, editor, store, gate)
            if not arguments.force and not (result.decoded and (impact is None or impact.accepted)):
                wanted = arguments.store or arguments.output_dir
                tell("The edit is not saved; --force would save it." if wanted else "")
                return REFUSED
            left = result.patch if arguments.store else None
            try:
                _save(arguments, editor, store, result, impact)
            except StaleEditError:
                tell(
                    f"Another process has changed the store {arguments.store} meanwhile: the edit is made anew on top."
                )
                take_back(editor.model)
                continue
            left = None
            return DONE
    finally:
        if left is not None and not _is_stored(arguments, left):
            _save_beside(arguments, left)


def _make(
    arguments: EditTranslationArguments,
    editor: "TranslationEditor",
    store: "EditStore | None",
    gate: "ImpactGate | None",
) -> "tuple[TranslationEditResult, ImpactReport | None]":
    """The edit on top of those of the store, and what its gate says."""
    from ...correction.unknown_words import unknown_words

    source, target, before = _mistake(arguments, editor)
    earlier = store.corrections if store else []
    keep = [(each.source, each.target) for each in earlier]
    result = editor.edit(source, target, arguments.alternatives, keep=keep)
    named = {"source": source, "wanted": target, "before": before, "after": result.translation}
    tell(
        "\n".join(f"{name + ':':7} {inline(text)}" for name, text in named.items()),
        source=source,
        target=target,
        before=before,
        after=result.translation,
        unknown_words=unknown_words(editor.tokenizer, source),
    )
    _tell_edit(result)
    if gate is None or not (result.decoded or arguments.force):
        return result, None
    impact = gate.measure(result.patch, keep=earlier)
    tell(describe_impact(impact), impact=impact.to_dict())
    return result, impact


def _save(
    arguments: EditTranslationArguments,
    editor: "TranslationEditor",
    store: "EditStore | None",
    result: "TranslationEditResult",
    impact: "ImpactReport | None",
) -> None:
    """Write the edit to where it is asked for."""
    from ...operations.store.edit_store import EditStore

    if arguments.output_dir is not None:
        result.patch.save_pretrained(arguments.output_dir)
        tell(f"The edit is saved in {arguments.output_dir}", output_dir=arguments.output_dir)
    if arguments.store is not None:
        store = store or EditStore.create(arguments.store, editor.model, edit_config=editor.edit_config, exist_ok=True)
        stored = store.add(result, impact, force=arguments.force)
        tell(f"It is edit {stored.id} of the store {arguments.store}", store=arguments.store, id=stored.id)


def _is_stored(arguments: EditTranslationArguments, patch: "EditPatch") -> bool:
    """Whether an edit came into the store before the command was interrupted."""
    from ...operations.store.edit_store import EditStore

    try:
        ids = [edit.id for edit in EditStore.open(arguments.store).edits]
    except EditableError:  # it is damaged, or was not made yet
        return False
    return any(each.endswith(f"-{patch.fingerprint()[:8]}") for each in ids)


def _save_beside(arguments: EditTranslationArguments, patch: "EditPatch") -> None:
    """Keep a finished edit that could not come into the store."""
    place = arguments.output_dir
    if place is None:
        store = Path(arguments.store).resolve()
        place = str(store.with_name(f"{store.name}.not_added-{patch.fingerprint()[:8]}"))
        patch.save_pretrained(place)
    tell(
        f"The edit is finished, but not in the store {arguments.store}. It is saved in {place}. Give the same command "
        "again to make it on top of what the store has now; if that is what it had before, EditStore.add takes the "
        "saved one.",
        not_added=place,
    )


def _tell_edit(result: "TranslationEditResult") -> None:
    outcome = "holds" if result.success else "does not hold"
    said = "says" if result.decoded else "does not say"
    tell(
        f"The constraint {outcome} after {result.steps} steps: l_e {result.initial_loss:.3f} → {result.loss:.3f}. "
        f"Beam search {said} the target (rounds: {result.rounds}).",
        editor=result.patch.editor,
        success=result.success,
        decoded=result.decoded,
        steps=result.steps,
        rounds=result.rounds,
        initial_loss=result.initial_loss,
        loss=result.loss,
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable edit`; returns the exit code: 3 if the model does not say the target."""
    return run_main(_edit, argv)
