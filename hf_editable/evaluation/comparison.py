"""Editors, or edited parameters, next to each other: each tuned on validation edits, then measured on test edits."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..errors import EditableValueError
from ..files import check_folder, read_saved, whole_folder, write_json
from ..modeling import EditableMixin
from ..processes import on_main
from ..tail import Tail
from .drawdown import evaluate_edits
from .drawing import draw, draw_interval, open_axes
from .edit_variants import EditVariants
from .json_report import markdown_table
from .markup import with_interval
from .report import EditReport
from .settings import choose_rows
from .tuning import TriedSetting, TunedEditor, tune_editor


logger = logging.get_logger(__name__)

COMPARISON_NAME = "comparison.json"
_SYMBOLS = {"learning_rate": "α", "beta": "β", "momentum": "μ"}
_COLUMNS = (
    "Edits",
    "Weights",
    "Coefficients",
    "Validation success",
    "Validation KL",
    "BLEU drawdown [95 %]",
    "Success",
)
_COLUMNS += ("Decode success", "Steps", "KL", "ms per edit")


@dataclass
class ComparedVariant:
    """
    One of the things compared.

    Args:
        name (`str`): its name.
        overrides (`dict[str, Any]`): the fields of [`EditConfig`] that make it.
        num_parameters (`int`): how many weights its edits move.
        tuned ([`TunedEditor`]): the settings that were tried on validation edits, and the one that was chosen.
        summary (`dict[str, Any]`): the measures on the test edits, as in [`EditReport`].
    """

    name: str
    overrides: dict[str, Any]
    num_parameters: int
    tuned: TunedEditor
    summary: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "tuned": self.tuned.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ComparedVariant":
        """Read what `to_dict` wrote."""
        return cls(**{**values, "tuned": TunedEditor.from_dict(values["tuned"])})


@dataclass
class Comparison:
    """
    The outcome of [`compare_variants`].

    Args:
        variants (`list[ComparedVariant]`): what was compared.
        settings (`dict[str, Any]`): how: success wanted, seed, machine, versions; plain JSON values.
    """

    variants: list[ComparedVariant]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as a JSON-serialisable dictionary."""
        return {"settings": self.settings, "variants": [variant.to_dict() for variant in self.variants]}

    def save(self, output_dir: str | os.PathLike) -> None:
        """
        Write `comparison.json`, `table.md` and, where matplotlib is installed, `comparison.png`.

        Raises:
            EditableFileError: if `output_dir` is a file.
        """
        with whole_folder(output_dir) as folder:
            write_json(folder / COMPARISON_NAME, self.to_dict())
            (folder / "table.md").write_text(self.markdown(), encoding="utf-8")
            plot_comparison(self, folder / "comparison.png")

    @classmethod
    def load(cls, output_dir: str | os.PathLike) -> "Comparison":
        """
        Read what `save` wrote.

        Raises:
            EditableFileError: if there is no whole comparison in the folder.
        """

        def build(values: dict[str, Any]) -> "Comparison":
            return cls([ComparedVariant.from_dict(variant) for variant in values["variants"]], values["settings"])

        return read_saved(output_dir, COMPARISON_NAME, build, "Comparison.save")

    def markdown(self) -> str:
        """The table, one row a variant, and how it was made."""
        table = markdown_table(_COLUMNS, [_cells(variant) for variant in self.variants])
        return f"{table}\n\n" + "".join(f"- {fact}\n" for fact in self._facts())

    def _facts(self) -> list[str]:
        settings, summary = self.settings, self.variants[0].summary
        wanted, steps = settings["target_success"], summary["edit_config"]["max_steps"]
        facts = [
            f"Coefficients: the lowest validation KL among the settings with which at least {wanted:.0%} of "
            f"{settings['num_validation_edits']} validation edits succeed within {steps} steps; KL in nats a token of "
            f"{settings['num_validation_sentences']} validation sentences.",
            f"Measured on {summary['num_edits']} test edits and {summary['num_test']} test sentences, beam "
            f"{summary['num_beams']}, BLEU `{summary['bleu_signature']}`: {summary['bleu']:.2f} before any edit.",
        ]
        missed = [variant.name for variant in self.variants if not variant.tuned.reached]
        if missed:
            facts.insert(1, f"\\* No setting reached {wanted:.0%}; the most successful one: {', '.join(missed)}.")
        versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
        facts.append(f"Seed {settings['seed']}. Machine: {settings['machine']}. Versions: {versions}.")
        return facts + ([f"Command: `{settings['command']}`."] if "command" in settings else [])


def _cells(variant: ComparedVariant) -> list[str]:
    chosen, summary = variant.tuned.chosen, variant.summary
    coefficients = ", ".join(f"{_SYMBOLS[name]} = {value:.3g}" for name, value in chosen.coefficients.items())
    return [
        variant.name.replace("_", " "),
        f"{variant.num_parameters:,}",
        coefficients,
        f"{chosen.success_rate:.1%}" + ("" if variant.tuned.reached else " \\*"),
        "–" if chosen.kl is None else f"{chosen.kl:.3g}",
        with_interval(summary["drawdown"], summary["drawdown_interval"]),
        f"{summary['success_rate']:.1%}",
        f"{summary['decode_success_rate']:.1%}",
        "–" if summary["mean_steps"] is None else f"{summary['mean_steps']:.2f}",
        f"{summary['kl']:.3g}",
        f"{summary['milliseconds_median']:.0f}",
    ]


def compare_variants(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    variants: EditVariants,
    *,
    validation_edits: Dataset,
    validation_set: Dataset,
    test_edits: Dataset,
    test_set: Dataset,
    output_dir: str | os.PathLike,
    num_validation_edits: int | None = None,
    num_validation_sentences: int | None = 200,
    target_success: float = 0.95,
    refinements: int = 2,
    max_steps: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    **evaluation_options: Any,
) -> Comparison:
    """
    Tune each variant on validation edits ([`tune_editor`]), then measure it on test edits ([`evaluate_edits`]).

    An interrupted comparison goes on where it ended. Every variant has a folder of its own in `output_dir`.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        variants (`dict[str, dict[str, Any]]`):
            Fields of [`EditConfig`] by name, as [`editor_variants`] and [`parameter_variants`] give them.
        validation_edits ([`~datasets.Dataset`]): edits to tune with.
        validation_set ([`~datasets.Dataset`]): sentence pairs to tune with.
        test_edits ([`~datasets.Dataset`]): edits to measure with; none of a source of `validation_edits`.
        test_set ([`~datasets.Dataset`]): sentence pairs to measure with.
        output_dir (`str`): folder for the results; see [`Comparison`].
        num_validation_edits (`int`, *optional*): how many validation edits to make; `None` makes all.
        num_validation_sentences (`int`, *optional*, defaults to `200`): how many pairs to tune with.
        target_success (`float`, *optional*, defaults to `0.95`): share of the validation edits that must succeed.
        refinements (`int`, *optional*, defaults to `2`): see [`tune_editor`].
        max_steps (`int`, *optional*, defaults to `10`): the most steps of an edit.
        batch_size (`int`, *optional*, defaults to `64`): sentences in a batch.
        seed (`int`, *optional*, defaults to `0`): of the choices at random and of the bootstrap.
        settings (`dict[str, Any]`, *optional*): what else to keep with the results, such as the command.
        evaluation_options (*optional*): further arguments of [`evaluate_edits`], such as `num_edits`.

    Returns:
        [`Comparison`].

    Raises:
        EditableValueError:
            if there is no variant, a source is among the validation edits and the test edits, or what
            [`tune_editor`] and [`evaluate_edits`] refuse.
    """
    if not variants:
        raise EditableValueError("There is nothing to compare; give at least one variant.")
    check_folder(output_dir)
    check_apart(validation_edits, test_edits)
    tuning = {"num_edits": num_validation_edits, "num_sentences": num_validation_sentences}
    tuning |= {"target_success": target_success, "refinements": refinements}
    compared = []
    for name, fields in variants.items():
        folder, overrides = Path(output_dir) / name, {**fields, "max_steps": max_steps}
        both = {"batch_size": batch_size, "seed": seed, "output_dir": folder, **overrides}
        tuned = tune_editor(model, tokenizer, validation_edits, validation_set, **tuning, **both)
        if not tuned.reached:
            logger.warning(
                f"{name}: {target_success:.0%} of the edits succeed with none of {len(tuned.tried)} settings."
            )
        options = {**both, **tuned.chosen.coefficients, **evaluation_options, "name": name}
        report: EditReport = evaluate_edits(model, tokenizer, test_edits, test_set, **options)
        moved = sum(
            tensor.numel() for tensor in Tail(model, model.edit_config.replace(**overrides)).parameters.values()
        )
        compared.append(ComparedVariant(name, fields, moved, tuned, report.summary))
    how = {name: compared[0].summary[name] for name in ("seed", "machine", "versions")}
    how |= {"target_success": target_success, "refinements": refinements, **(settings or {})}
    how["num_validation_edits"] = min(num_validation_edits or math.inf, len(validation_edits))
    how["num_validation_sentences"] = min(num_validation_sentences or math.inf, len(validation_set))
    comparison = Comparison(compared, how)
    on_main(lambda: comparison.save(output_dir))
    return comparison


def check_apart(validation_edits: Dataset, test_edits: Dataset) -> None:
    """
    Raises:
        EditableValueError: if a source is in both: what is chosen for it would be measured with it.
    """
    columns = ("source", "target", "alternatives")
    edits = {"validation_edits": validation_edits, "test_edits": test_edits}
    sources = [
        {row["source"].strip() for row in choose_rows(name, rows, columns, None, 0).values()}
        for name, rows in edits.items()
    ]
    if common := sources[0] & sources[1]:
        raise EditableValueError(
            f"{len(common)} sources are among the validation edits and the test edits, such as {min(common)[:60]!r}. "
            "Coefficients must not be tuned on what they are measured with: mine validation edits from another split."
        )


def plot_comparison(comparison: Comparison, path: str | os.PathLike) -> None:
    """
    Draw success against locality of all settings that were tried on validation edits, a line through the step sizes
    of each variant, and beside it the BLEU drawdown of the chosen ones on test edits.

    Without matplotlib (`pip install hf_editable[plots]`) nothing is drawn, with a warning.
    """
    names = [variant.name.replace("_", " ") for variant in comparison.variants]

    def fill(figure: Any) -> None:
        tried, measured = open_axes(figure, 1, 2)
        for position, (name, variant) in enumerate(zip(names, comparison.variants, strict=True)):
            color, chosen, summary = f"C{position}", variant.tuned.chosen, variant.summary
            tried.plot(*_points(variant.tuned.tried), "o", color=color, markersize=3, alpha=0.35)
            tried.plot(*_points(_step_sizes(variant.tuned)), color=color, linewidth=1.2, alpha=0.8)
            star = {"marker": "*", "markersize": 15, "markeredgecolor": "black", "linestyle": "none"}
            tried.plot(*_points([chosen]), color=color, label=name, zorder=3, **star)
            draw_interval(measured, -position, summary["drawdown"], summary["drawdown_interval"], color)
        wanted = comparison.settings["target_success"]
        tried.axhline(100 * wanted, color="black", linestyle="--", linewidth=0.8)
        tried.set(xscale="log", xlabel="KL divergence on validation sentences (nats a token)", ylim=(-3, 104))
        tried.set(
            ylabel="Validation edits that succeed (%)", title=f"Settings tried (star: chosen; line: {wanted:.0%})"
        )
        tried.legend(frameon=False, fontsize="small")
        measured.axvline(0, color="black", linewidth=0.8)
        measured.set(yticks=[-position for position in range(len(names))], yticklabels=names)
        measured.set(xlabel="BLEU drawdown of a test edit (95 % interval)", title="Chosen settings on test edits")

    draw(path, (12, 2.5 + 0.4 * max(5, len(names))), fill)


def _step_sizes(tuned: TunedEditor) -> list[TriedSetting]:
    """The settings that differ from the chosen one in their step size alone, the smallest first."""

    def others(setting: TriedSetting) -> dict[str, float]:
        return {name: value for name, value in setting.coefficients.items() if name != "learning_rate"}

    line = [setting for setting in tuned.tried if others(setting) == others(tuned.chosen)]
    return sorted(line, key=lambda setting: setting.coefficients["learning_rate"])


def _points(settings: Sequence[TriedSetting]) -> tuple[list[float], list[float]]:
    """KL and success in per cent, where there is a KL to draw on a logarithmic axis."""
    shown = [setting for setting in settings if setting.kl is not None and setting.kl > 0]
    return [setting.kl for setting in shown], [100 * setting.success_rate for setting in shown]
