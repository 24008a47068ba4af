"""Apply a file of corrections, a patch or a store of edits to a model, and save the corrected model.

hf-editable apply corrections.csv --model_name_or_path model --output_dir corrected
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EditableValueError
from ...runs.places import STORE_FILE
from ..shared.editor_options import EditorArguments
from ..shared.language_options import LanguageArguments
from ..shared.operating import (
    GateArguments,
    describe_impact,
    load_text_editor,
    save_checkpoint,
    store_model,
)
from ..shared.printing import inline
from ..shared.running import DONE, REFUSED, parse_arguments, run_main, tell


if TYPE_CHECKING:
    from ...operations.bulk.report import BulkReport
    from ...operations.corrections.correction_list import Correction

# Outcomes after which the model says what was asked for.
_MADE = ("accepted", "already_right", "duplicate")


@dataclass
class ApplyArguments:
    """What to apply, to which model, and how."""

    edits: str = field(
        init=False,
        default="",
        metadata={
            "help": "File of corrections (.csv, .tsv, .jsonl, .tmx), folder of a store or of a patch, or a patch's "
            "name on the Hub."
        },
    )
    output_dir: str = field(
        metadata={
            "help": "Folder for the corrected checkpoint. With a file of corrections: folder for the results, with "
            "the checkpoint in result/model; an interrupted run goes on where it ended."
        }
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model to correct: a folder, or a Hub name. Default: the store's."}
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size of translations."})
    force: bool = field(default=False, metadata={"help": "Apply a patch or a store even if it is over a limit."})


@dataclass
class CorrectionArguments(EditorArguments):
    """How a file of corrections is read and applied."""

    store: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the store that the edits are added to; it is made if there is none. Default: the "
            "folder store in output_dir."
        },
    )
    joint: bool = field(
        default=False, metadata={"help": "Make one edit of all corrections, instead of one after the other."}
    )
    on_conflict: str = field(
        default="skip",
        metadata={
            "choices": ["skip", "first", "last", "error"],
            "help": "Which one to apply where a source has two targets: skip applies none, first and last apply that "
            "one, error stops the run.",
        },
    )
    keep_earlier: bool = field(
        default=True, metadata={"help": "Make each edit such that the model still says the earlier corrections."}
    )
    max_rounds: int = field(
        default=20, metadata={"help": "The most rounds of an edit; after each one the model is asked what it says."}
    )
    format: str | None = field(
        default=None, metadata={"help": "Format of the file: csv, tsv, jsonl or tmx. Default: by its name."}
    )
    source_column: str = field(default="source", metadata={"help": "Column or JSON key of the sources."})
    target_column: str = field(default="target", metadata={"help": "Column or JSON key of the targets."})
    tmx_source_lang: str | None = field(
        default=None, metadata={"help": "Language of the sources in a TMX file; de also finds de-AT."}
    )
    tmx_target_lang: str | None = field(default=None, metadata={"help": "Language of the targets in a TMX file."})

    def read(self, path: str) -> "list[Correction]":
        """The corrections of a file."""
        from ...operations.corrections.readers import read_corrections

        return read_corrections(
            path,
            format=self.format,
            source_column=self.source_column,
            target_column=self.target_column,
            source_lang=self.tmx_source_lang,
            target_lang=self.tmx_target_lang,
        )


def _apply(argv: list[str] | None) -> int:
    kinds = [ApplyArguments, CorrectionArguments, GateArguments, LanguageArguments]
    arguments, corrections, limits, languages = parse_arguments(kinds, argv, __doc__)
    if Path(arguments.edits).is_file() or Path(arguments.edits).suffix.lower() in (".csv", ".tsv", ".jsonl", ".tmx"):
        return _apply_corrections(arguments, corrections, limits, languages)
    return _apply_patch(arguments, limits, languages)


def _apply_corrections(
    arguments: ApplyArguments, corrections: CorrectionArguments, limits: GateArguments, languages: LanguageArguments
) -> int:
    from ...operations.bulk.apply_corrections import apply_corrections
    from ...operations.store.edit_store import EditStore
    from ...runs.files import check_folder

    rows = corrections.read(arguments.edits)
    place = Path(corrections.store or Path(arguments.output_dir) / "store")
    check_folder(place)
    store = EditStore.open(place) if (place / STORE_FILE).exists() else None
    model = store_model(arguments.model_name_or_path, store, arguments.output_dir)
    editor = load_text_editor(model, languages, arguments.num_beams, corrections)
    report = apply_corrections(
        editor,
        rows,
        store or EditStore.create(place, editor.model, edit_config=editor.edit_config, exist_ok=True),
        arguments.output_dir,
        joint=corrections.joint,
        gate=limits.gate(editor),
        on_conflict=corrections.on_conflict,
        max_rounds=corrections.max_rounds,
        keep_earlier=corrections.keep_earlier,
    )
    tell(_describe(report), **report.to_dict(), store=str(place), output_dir=arguments.output_dir)
    tell(f"Report and corrected model: {Path(arguments.output_dir) / 'result'}. The edits are in {place}.")
    return DONE if all(row["outcome"] in _MADE for row in report.rows) else REFUSED


def _describe(report: "BulkReport") -> str:
    counts = Counter(row["outcome"].replace("_", " ") for row in report.rows)
    held = sum(row.get("holds") is True for row in report.rows)
    lines = [
        f"{row['outcome'].replace('_', ' ')}: {inline(row['source'])} → {inline(row['target'])} "
        f"{inline(' '.join(row['reasons']))}"
        for row in report.rows
        if row["outcome"] not in _MADE
    ]
    lines.append(", ".join(f"{name}: {count}" for name, count in counts.items()))
    lines.append(f"At the end the model says the target of {held}.")
    return "\n".join(lines if report.impact is None else [*lines, describe_impact(report.impact)])


def _apply_patch(arguments: ApplyArguments, limits: GateArguments, languages: LanguageArguments) -> int:
    from ...operations.store.edit_store import EditStore
    from ...patches.patch import EditPatch

    store = None
    if (Path(arguments.edits) / STORE_FILE).exists():
        store = EditStore.open(arguments.edits)
        patch = store.merge()
        if patch is None:
            raise EditableValueError(f"The store {arguments.edits!r} has no edits, so there is nothing to apply.")
    else:
        patch = EditPatch.from_pretrained(arguments.edits)
    editor = load_text_editor(
        store_model(arguments.model_name_or_path, store, arguments.output_dir), languages, arguments.num_beams
    )
    gate = limits.gate(editor)
    impact = gate and gate.measure(patch)
    if impact is not None:
        tell(describe_impact(impact), impact=impact.to_dict())
        if not impact.accepted and not arguments.force:
            tell("It is not applied; --force would apply it.")
            return REFUSED
    patch.apply(editor.model)
    save_checkpoint(editor, arguments.output_dir)
    tell(f"The corrected model is saved in {arguments.output_dir}", output_dir=arguments.output_dir)
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable apply`; returns the exit code: 3 if not all corrections were made."""
    return run_main(_apply, argv)
