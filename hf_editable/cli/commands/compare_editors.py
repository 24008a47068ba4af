r"""Compare editors of one model on the same edits: by gradients, with penalties, by fine-tuning, a table (Table 3).

    hf-editable compare-editors --model_name_or_path model --edits_dir edits --data_dir data --num_edits 100 \
        --output_dir results/editors

`--editors gradient gradient:verified finetune_all lora` chooses, where `:verified` has beam search asked after each
edit; lora needs `pip install hf_editable[lora]`. `--editor_options kl.weight=5 ewc.weight=100` gives settings.
"""

from dataclasses import dataclass, field
from typing import Any

from ...errors import EditableValueError
from ..shared.editor_options import parse_settings
from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data, load_edits
from ..shared.measuring import (
    MeasuringArguments,
    ScoreArguments,
    command_line,
    load_editable,
    report_folder,
    write_reports,
)
from ..shared.running import parse_arguments, run_main


VERIFIED = "verified"
_ROUNDS = 20


@dataclass(kw_only=True)
class EditorsArguments(MeasuringArguments):
    """Which model to edit, and with what."""

    model_name_or_path: str = field(metadata={"help": "Model to edit: a folder, or a name on the Hub."})
    editors: list[str] | None = field(
        default=None,
        metadata={
            "help": "What to compare: names of editors, with :verified behind those whose edits beam search is asked "
            "about. Default: gradient, gradient:verified, and all others but lora, which needs PEFT."
        },
    )

    def variants(self) -> dict[str, dict[str, Any]]:
        """
        What each of the editors is made with; see [`EditableMixin.edit`].

        Raises:
            EditableValueError: if there is no such editor, one is named twice, or a setting is of none of them.
        """
        from ...editors.registry import editor_family, editor_names

        if self.editor is not None:
            raise EditableValueError(f"--editor {self.editor}: this command compares several. Give --editors.")
        names = self.editors
        if names is None:
            others = [name for name in editor_names() if name not in ("gradient", "lora")]
            names = ["gradient", f"gradient:{VERIFIED}", *others]
        if not names or len(set(names)) != len(names):
            raise EditableValueError(f"--editors {' '.join(names)}: name one or more, each once.")
        variants = {name: self.overrides() | {"editor": name.partition(":")[0]} for name in names}
        for name, variant in variants.items():
            editor_family(variant["editor"])
            if (how := name.partition(":")[2]) not in ("", VERIFIED):
                raise EditableValueError(f"--editors {name}: behind the colon, {how!r} is not {VERIFIED!r}.")
            variant["max_rounds"] = (self.max_rounds or _ROUNDS) if how else self.max_rounds
            variant["editor_options"] = {}
        for text in self.editor_options or ():
            editor, dot, setting = text.partition(".")
            chosen = [variant for variant in variants.values() if variant["editor"] == editor]
            if not dot or not chosen:
                raise EditableValueError(
                    f"--editor_options {text}: give settings of the compared editors, such as kl.weight=5."
                )
            for variant in chosen:
                variant["editor_options"] |= parse_settings([setting])
        return variants

    def overrides(self) -> dict[str, Any]:
        """What all of them are made with."""
        given = {"learning_rate": self.learning_rate, "max_steps": self.max_steps}
        return {name: value for name, value in given.items() if value is not None}


def _compare(argv: list[str] | None) -> None:
    kinds = (EditorsArguments, ScoreArguments, LanguageArguments)
    arguments, scores, languages = parse_arguments(kinds, argv, __doc__)
    from ...evaluation.single_edits import evaluate_edits
    from ...reporting.editors_plot import plot_editors
    from ...runs.processes import on_main

    variants = arguments.variants()
    test_set = load_data(arguments.data_dir, arguments.split)[arguments.split]
    edits = load_edits(arguments.edits_dir)
    model, tokenizer = load_editable(arguments.model_name_or_path, languages)
    # All are made before the first one runs, so that what is missing is said at once.
    references = {}
    for name, variant in variants.items():
        made_with = {key: value for key, value in variant.items() if key != "max_rounds"}
        references[name] = arguments.references_for(model, tokenizer, **made_with)
    options = {**arguments.options(), **vars(scores)}
    reports = []
    for name, variant in variants.items():
        place = report_folder(arguments.output_dir, name)
        own = {"name": name, "output_dir": place, "references": references[name], **variant}
        reports.append(evaluate_edits(model, tokenizer, edits, test_set, **{**options, **own}))
    on_main(lambda: write_reports(arguments.output_dir, reports, command_line(argv), "editors", plot_editors))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable compare-editors`; returns the exit code."""
    return run_main(_compare, argv)
