"""Take an edit out of a store, whichever it is. The later ones are made anew, and the model is asked for them again.

hf-editable revert 0001 --store edits

An edit is made anew by the kind of editor that made it; settings of that (`--learning_rate 1e-3`, `--reference_file
pairs.csv`, or `--editor kl --editor_options weight=5`) are to be given again.
"""

from dataclasses import dataclass, field

from ..shared.editor_options import EditorArguments
from ..shared.language_options import LanguageArguments
from ..shared.operating import GateArguments, describe_impact, load_text_editor, save_checkpoint, store_model
from ..shared.printing import inline
from ..shared.running import parse_arguments, run_main, tell


@dataclass
class RevertArguments:
    """Which edit, and of which store."""

    id: str = field(init=False, default="", metadata={"help": "Edit to take out; the beginning of its id is enough."})
    store: str = field(metadata={"help": "Folder of the store."})
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Model that the store's edits are of, without them. Default: the one that the store names."},
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size that the model is asked with."})
    allow_lost: bool = field(
        default=False, metadata={"help": "Take it out even if other corrections are lost by that; they are named."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for a checkpoint with the edits that are left."}
    )


def _revert(argv: list[str] | None) -> None:
    kinds = [RevertArguments, EditorArguments, GateArguments, LanguageArguments]
    arguments, maker, limits, languages = parse_arguments(kinds, argv, __doc__)
    from ...operations.store.edit_store import EditStore
    from ...runs.files import check_folder

    store = EditStore.open(arguments.store)
    check_folder(arguments.store)
    is_last = store.get(arguments.id) == store.edits[-1]
    editor = gate = None
    if not is_last or arguments.output_dir is not None or limits.given():
        place = store_model(arguments.model_name_or_path, store, arguments.output_dir)
        editor = load_text_editor(place, languages, arguments.num_beams, maker)
        store.load(editor.model)
        gate = limits.gate(editor)
    result = store.revert(arguments.id, editor, gate, allow_lost=arguments.allow_lost)
    tell(
        f"Taken out: {result.reverted.id} ({inline(result.reverted.source)} → {inline(result.reverted.target)}). "
        f"Made anew: {', '.join(each.id for each in result.redone) or 'none'}.",
        reverted=result.reverted.to_dict(),
        redone=[each.to_dict() for each in result.redone],
        lost=[{"source": each.source, "target": each.target} for each in result.lost],
    )
    for each in result.lost:
        tell(f"Lost: {inline(each.source)} → {inline(each.target)}")
    if result.impact is not None:
        tell(describe_impact(result.impact), impact=result.impact.to_dict())
    if arguments.output_dir is not None:
        save_checkpoint(editor, arguments.output_dir)
        tell(f"The model is saved in {arguments.output_dir}", output_dir=arguments.output_dir)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable revert`; returns the exit code."""
    return run_main(_revert, argv)
