"""The outcome of a comparison: table, picture, files."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..measures.columns import NOTHING, Column
from ..measures.edit_measures import BLEU_DRAWDOWN, DECODE_SUCCESS, KL, MILLISECONDS, STEPS, SUCCESS
from ..measures.registry import added_measures
from ..runs.files import read_saved, whole_folder, write_json
from .drawing import draw, draw_interval, open_axes
from .json_report import markdown_table
from .tuned_editor import TriedSetting, TunedEditor


COMPARISON_NAME = "comparison.json"
_SYMBOLS = {"learning_rate": "α", "beta": "β", "momentum": "μ"}
_HEADINGS = ("Edits", "Weights", "Coefficients", "Validation success", "Validation KL")


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
        columns = _columns([variant.summary for variant in self.variants])
        header = [*_HEADINGS, *(column.heading for column in columns)]
        table = markdown_table(header, [_cells(variant, columns) for variant in self.variants])
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


def _columns(summaries: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns of what was measured on test edits."""
    first = [
        dataclasses.replace(BLEU_DRAWDOWN.column, heading="BLEU drawdown [95 %]"),
        *(measure.column for measure in (SUCCESS, DECODE_SUCCESS, STEPS)),
        dataclasses.replace(KL.column, form=".3g"),  # of settings that are tuned for it, over orders of magnitude
        MILLISECONDS.column,
    ]
    added = [measure for measure in added_measures() if any(measure.summary_key in each for each in summaries)]
    return [*first, *(measure.column for measure in added if measure.column is not None)]


def _cells(variant: ComparedVariant, columns: Sequence[Column]) -> list[str]:
    chosen = variant.tuned.chosen
    coefficients = ", ".join(f"{_SYMBOLS[name]} = {value:.3g}" for name, value in chosen.coefficients.items())
    return [
        variant.name.replace("_", " "),
        f"{variant.num_parameters:,}",
        coefficients,
        f"{chosen.success_rate:.1%}" + ("" if variant.tuned.reached else " \\*"),
        NOTHING if chosen.kl is None else f"{chosen.kl:.3g}",
        *(column.cell(variant.summary) for column in columns),
    ]


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
