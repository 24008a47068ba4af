"""What the commands that operate edits share: the store, the gate, the corrected checkpoint, and what they say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EditableValueError
from ...runs.places import STORE_FILE, check_apart
from .editor_options import EditorArguments
from .language_options import LanguageArguments
from .loading import load_data, load_model, load_tokenizer
from .printing import inline


if TYPE_CHECKING:
    from ...correction.translation_editor import TranslationEditor
    from ...operations.gate.impact import ImpactGate
    from ...operations.gate.report import ImpactReport
    from ...operations.store.edit_store import EditStore
    from ...operations.store.manifest import StoredEdit

SHOWN_CHANGES = 10


@dataclass
class GateArguments:
    """What an edit may change beside its own sentence; without any of these, that is not measured."""

    regression_file: str | None = field(
        default=None,
        metadata={
            "help": "Sentences to translate with and without the edit, with their references: CSV, TSV, JSONL or TMX."
        },
    )
    regression_data: str | None = field(
        default=None,
        metadata={"help": "Folder of prepared data, instead of --regression_file: a sample of it is taken."},
    )
    regression_split: str = field(
        default="validation", metadata={"help": "Split of --regression_data that is sampled."}
    )
    regression_size: int = field(default=500, metadata={"help": "Sentences in the sample of --regression_data."})
    max_drawdown: float | None = field(
        default=None, metadata={"help": "The most BLEU, in points, that an edit may cost on those sentences."}
    )
    must_keep: str | None = field(
        default=None, metadata={"help": "File of corrections that the model must go on saying."}
    )
    max_lost: int = field(
        default=0, metadata={"help": "The most corrections, of --must_keep and of the store, that an edit may lose."}
    )
    bleu_tokenize: str = field(
        default="13a", metadata={"help": "Tokenizer of sacrebleu; none where the sentences are tokenized text."}
    )
    lowercase: bool = field(default=False, metadata={"help": "Ignore case in the scores."})
    regression_seed: int = field(default=0, metadata={"help": "Seed of the sample and of the bootstrap."})

    def __post_init__(self):
        if self.regression_file is not None and self.regression_data is not None:
            raise EditableValueError("--regression_file and --regression_data say the same thing: give one of them.")
        if self.max_drawdown is not None and self.regression_file is None and self.regression_data is None:
            raise EditableValueError(
                "--max_drawdown is measured on sentences: give them by --regression_file or --regression_data."
            )

    def given(self) -> bool:
        """Whether edits go through a gate."""
        return any(value is not None for value in (self.regression_file, self.regression_data, self.must_keep))

    def gate(self, editor: "TranslationEditor") -> "ImpactGate | None":
        """
        The gate that edits go through; `None` if nothing is asked for.

        Raises:
            EditableFileError: if a file is missing or damaged.
            EditableValueError: if a number is out of range.
        """
        if not self.given():
            return None
        from ...operations.corrections.readers import read_corrections
        from ...operations.gate.impact import ImpactGate
        from ...operations.gate.regression import sample_regression

        must_keep = [] if self.must_keep is None else read_corrections(self.must_keep)
        if self.regression_file is not None:
            regression = _pairs(read_corrections(self.regression_file))
        elif self.regression_data is not None:
            rows = load_data(self.regression_data, self.regression_split)[self.regression_split]
            regression = sample_regression(rows, self.regression_size, self.regression_seed)
        else:
            regression = _pairs(must_keep)
        return ImpactGate(
            editor,
            regression,
            max_drawdown=self.max_drawdown,
            must_keep=must_keep,
            max_lost=self.max_lost,
            bleu_tokenize=self.bleu_tokenize,
            lowercase=self.lowercase,
            seed=self.regression_seed,
        )


def _pairs(corrections: Any) -> list[dict[str, str]]:
    return [{"source": each.source, "target": each.target} for each in corrections]


def load_text_editor(
    place: str, languages: LanguageArguments, num_beams: int, editor: EditorArguments | None = None
) -> "TranslationEditor":
    """
    An editor of a checkpoint's translations.

    Args:
        place (`str`): folder of the checkpoint, or its name on the Hub.
        languages ([`LanguageArguments`]): its languages, if it has several.
        num_beams (`int`): beam size.
        editor ([`EditorArguments`], *optional*): what makes the edits; by default the model's own editor.
    """
    from ...correction.translation_editor import TranslationEditor

    tokenizer, model = load_tokenizer(place), load_model(place)
    languages.apply(model, tokenizer)
    given = EditorArguments() if editor is None else editor
    return TranslationEditor(
        model, tokenizer, num_beams=num_beams, references=given.references(tokenizer), **given.overrides()
    )


def open_store(path: str, editor: "TranslationEditor") -> "EditStore | None":
    """
    A store, with its edits applied to the editor's model; `None` if there is none yet.

    Raises:
        EditableFileError: if the place is a file or holds other files, or the store is damaged.
        EditableValueError: if the store is of another model.
    """
    from ...operations.store.access import StoreAccess
    from ...operations.store.edit_store import EditStore
    from ...runs.files import check_folder

    if not (check_folder(path) / STORE_FILE).exists():
        StoreAccess(Path(path), 0).check_new(exist_ok=True)
        return None
    store = EditStore.open(path)
    store.load(editor.model)
    return store


def store_model(model: str | None, store: "EditStore | None", output_dir: str | None = None) -> str:
    """
    Where the model to edit is: as the user says, or as the store knows.

    Args:
        model (`str`, *optional*): what the user says.
        store ([`EditStore`], *optional*): the store.
        output_dir (`str`, *optional*): where results go to.

    Raises:
        EditableValueError: if neither says it.
        EditableFileError: if the results would damage it.
    """
    if place := model or (store and store.base_model):
        if output_dir is not None:
            check_apart(output_dir, [("model", place)])
        return place
    raise EditableValueError(
        "Only a store may know its model, and there is none that does. Give --model_name_or_path."
    )


def save_checkpoint(editor: "TranslationEditor", output_dir: str) -> None:
    """Write the model as it is, with its tokenizer and a card, whole or not at all. A person's card is kept."""
    from ...hub.cards import CARD_NAME, by_a_person, write_card
    from ...hub.model_card import model_card
    from ...runs.files import whole_folder

    card = Path(output_dir) / CARD_NAME
    with whole_folder(output_dir) as folder:
        editor.model.save_pretrained(folder)
        editor.tokenizer.save_pretrained(folder)
        if card.exists() and by_a_person(card.read_bytes()):
            (folder / CARD_NAME).unlink()
        else:
            write_card(model_card(editor.model, Path(output_dir).resolve().name), folder)


def describe_impact(report: "ImpactReport") -> str:
    """What an edit changes, in a few lines for the terminal."""
    lines = [f"Of {report.num_sentences} other sentences it changes {len(report.changed)}."]
    for name, score in (("BLEU", report.bleu), ("chrF", report.chrf)):
        if score is not None:
            lines.append(f"{name} {score.before:.2f} → {score.after:.2f} ({score.cost}).")
    if report.asked:
        lines.append(
            f"Of {len(report.asked)} earlier corrections {len(report.kept)} hold, {len(report.lost)} are lost."
        )
    for each in report.changed[:SHOWN_CHANGES]:
        lines += [f"  {inline(each.source)}", f"    - {inline(each.before)}", f"    + {inline(each.after)}"]
    if len(report.changed) > SHOWN_CHANGES:
        lines.append(f"  … and {len(report.changed) - SHOWN_CHANGES} more.")
    return "\n".join(lines + [f"Refused: {reason}" for reason in report.reasons])


def describe_edits(edits: "list[StoredEdit]") -> str:
    """The edits of a store, two lines each."""
    lines = []
    for each in edits:
        more = f" (and {len(each.corrections) - 1} more)" if len(each.corrections) > 1 else ""
        said = {True: "decoded", False: "not decoded", None: "not asked"}[each.decoded]
        lines += [
            f"{each.id}  {each.added}  {said}{more}",
            f"    {inline(each.source)}",
            f"    → {inline(each.target)}",
        ]
    return "\n".join(lines)
