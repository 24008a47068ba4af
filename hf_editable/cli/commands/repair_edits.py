"""Repair a store that is damaged, or that git has merged from two branches which both added edits.

hf-editable repair edits

The edits are made anew in the order of the list, from the first one on that `hf-editable check` finds something wrong
with. All of that succeeds, or the store stays as it was. An edit is made anew by the kind of editor that made it;
settings of that (`--learning_rate 1e-3`, `--reference_file pairs.csv`, or `--editor kl --editor_options weight=5`) are
to be given again.
"""

from dataclasses import dataclass, field

from ..shared.editor_options import EditorArguments
from ..shared.language_options import LanguageArguments
from ..shared.operating import load_text_editor, store_model
from ..shared.running import parse_arguments, run_main, tell


@dataclass
class RepairArguments:
    """Which store, and with which model."""

    store: str = field(init=False, default="", metadata={"help": "Folder of the store."})
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Model that the store's edits are of, without them. Default: the one that the store names."},
    )
    num_beams: int = field(default=5, metadata={"help": "Beam size that the model is asked with."})
    allow_lost: bool = field(
        default=False, metadata={"help": "Repair it even if corrections are lost by that; they are named."}
    )


def _repair(argv: list[str] | None) -> None:
    kinds = [RepairArguments, EditorArguments, LanguageArguments]
    arguments, maker, languages = parse_arguments(kinds, argv, __doc__)
    from ...operations.store.edit_store import EditStore
    from ...operations.store.repair import repair_store

    store = EditStore(arguments.store)
    problems, redone, lost = store.problems(), [], []
    if problems:
        place = store_model(arguments.model_name_or_path, store)
        editor = load_text_editor(place, languages, arguments.num_beams, maker)
        result = repair_store(arguments.store, editor, allow_lost=arguments.allow_lost)
        problems, redone, lost = result.problems, result.redone, result.lost
    for each in problems:
        tell(f"{each.edit or 'base'}: {each.problem}")
    for each in lost:
        tell(f"Lost: {each.source} → {each.target}")
    tell(
        f"Made anew: {', '.join(each.id for each in redone) or 'none'}." if problems else "Nothing is wrong with it.",
        store=arguments.store,
        problems=[vars(each) for each in problems],
        redone=[each.to_dict() for each in redone],
        lost=[{"source": each.source, "target": each.target} for each in lost],
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable repair`; returns the exit code."""
    return run_main(_repair, argv)
