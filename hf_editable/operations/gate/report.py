"""The result of an impact gate: scores, every changed translation side by side, corrections kept and lost."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from ...measures.base import says
from ...measures.columns import with_interval
from ...measures.edit_measures import BLEU, CHRF
from ...measures.statistics import LEAST_RESAMPLED
from ...reporting.markup import escape, mark_words, table, to_html
from ...runs.files import read_saved, whole_folder, write_json
from ...runs.plain_values import from_plain
from ..corrections.correction_list import Correction


IMPACT_NAME = "impact.json"
_DERIVED = ("kept", "lost", "not_held")
_INTERVAL = f"Interval: paired bootstrap over sentences; none of fewer than {LEAST_RESAMPLED}."
# By the names of the report's fields.
SCORES = {score.name: score for score in (BLEU, CHRF)}


@dataclass(frozen=True)
class ScoreChange:
    """
    A score of the regression set's translations, in per cent, without and with an edit.

    Args:
        before (`float`): without the edit.
        after (`float`): with it.
        difference (`float`): `after - before`; below 0 if the edit costs something.
        interval (`tuple[float, float]`, *optional*):
            95 % interval of the difference, paired bootstrap over sentences; `None` of fewer than 20.
        signature (`str`): sacrebleu's description of the score.
    """

    before: float
    after: float
    difference: float
    interval: tuple[float, float] | None
    signature: str

    @property
    def cost(self) -> str:
        """The difference and its interval, if it has one, in words."""
        words = "" if self.interval is None else ", 95 % interval {:+.2f} to {:+.2f}".format(*self.interval)
        return f"{self.difference:+.2f}{words}"


@dataclass(frozen=True)
class ChangedTranslation:
    """
    A sentence of the regression set that is translated otherwise with an edit.

    Args:
        source (`str`): the sentence.
        before (`str`): its translation without the edit.
        after (`str`): its translation with it.
        reference (`str`, *optional*): what it should be.
    """

    source: str
    before: str
    after: str
    reference: str | None = None


@dataclass(frozen=True)
class AskedCorrection:
    """
    A correction that was asked again.

    Args:
        source (`str`): the sentence.
        target (`str`): the translation that it was corrected to.
        before (`str`): what the model says without the edit.
        after (`str`): what it says with it.
    """

    source: str
    target: str
    before: str
    after: str

    @property
    def held(self) -> bool:
        """Whether the model says the target without the edit."""
        return says(self.before, self.target)

    @property
    def holds(self) -> bool:
        """Whether the model says the target with the edit."""
        return says(self.after, self.target)


@dataclass(frozen=True)
class ImpactReport:
    """
    What an edit changes on a regression set, and whether it may be accepted.

    Args:
        accepted (`bool`): whether no limit of the gate is broken.
        reasons (`list[str]`): the limits that are broken; empty if the edit is accepted.
        source (`str`, *optional*): the sentence that the edit corrects, where the patch names one.
        target (`str`, *optional*): the translation that it is corrected to.
        said (`str`, *optional*): what the edited model says for the source.
        bleu ([`ScoreChange`], *optional*): against the references; `None` without them.
        chrf ([`ScoreChange`], *optional*): against the references; `None` without them.
        similarity (`float`):
            chrF of the translations with the edit against those without it; 100 if none has changed.
        num_sentences (`int`): sentences of the regression set.
        changed (`list[ChangedTranslation]`): every translation that the edit changes.
        asked (`list[AskedCorrection]`): the corrections that were asked again.
        settings (`dict[str, Any]`): how it was measured: beam size, limits, seed; plain JSON values.
    """

    accepted: bool
    reasons: list[str]
    source: str | None
    target: str | None
    said: str | None
    bleu: ScoreChange | None
    chrf: ScoreChange | None
    similarity: float
    num_sentences: int
    changed: list[ChangedTranslation]
    asked: list[AskedCorrection]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> list[Correction]:
        """Corrections that hold with the edit."""
        return [Correction(each.source, each.target) for each in self.asked if each.holds]

    @property
    def lost(self) -> list[Correction]:
        """Corrections that hold without the edit and not with it."""
        return [Correction(each.source, each.target) for each in self.asked if each.held and not each.holds]

    @property
    def not_held(self) -> list[Correction]:
        """Corrections that hold neither without the edit nor with it."""
        return [Correction(each.source, each.target) for each in self.asked if not each.held and not each.holds]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, with `kept`, `lost` and `not_held` among them."""
        values = dataclasses.asdict(self)
        for name in SCORES:
            if values[name] is not None and (interval := values[name]["interval"]) is not None:
                values[name]["interval"] = list(interval)
        derived = {name: [_pair(correction) for correction in getattr(self, name)] for name in _DERIVED}
        return {**values, **derived}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ImpactReport":
        """
        Read what `to_dict` wrote.

        Raises:
            ValueError: if a value is missing or of another type.
        """
        return from_plain(cls, {name: value for name, value in values.items() if name not in _DERIVED}, IMPACT_NAME)

    def markdown(self) -> str:
        """The scores, the changed translations side by side with the words that differ marked, the corrections."""
        parts = [f"# {self._title()}", "Accepted." if self.accepted else "Refused:"]
        parts.append("".join(f"- {escape(reason)}\n" for reason in self.reasons))
        parts.append(self._scores())
        parts.append(f"## Changed translations: {len(self.changed)} of {self.num_sentences}")
        if self.changed:
            header = ("Source", "Without the edit", "With the edit", "Reference")
            rows = [
                (escape(each.source), *marked(each.before, each.after), escape(each.reference or "–"))
                for each in self.changed
            ]
            parts.append(table(header, rows, text_columns=4))
        if self.asked:
            counts = f"{len(self.kept)} kept, {len(self.lost)} lost, {len(self.not_held)} did not hold before"
            header = ("Source", "Corrected to", "Without the edit", "With the edit", "")
            rows = [
                (escape(each.source), escape(each.target), escape(each.before), escape(each.after), _state(each))
                for each in self.asked
            ]
            parts += [f"## Earlier corrections: {counts}", table(header, rows, text_columns=5)]
        facts = ", ".join(f"{name} {value}" for name, value in self.settings.items() if not isinstance(value, dict))
        made = ", ".join(f"{name} {version}" for name, version in self.settings.get("versions", {}).items())
        parts.append("## How it was measured")
        parts.append(f"- {escape(facts)}\n- {escape(made)}\n")
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"

    def _title(self) -> str:
        if self.source is None:
            return "Impact of an edit"
        return f"Impact of {escape(self.source)} → {escape(self.target or '')}"

    def _scores(self) -> str:
        header = ("Score", "Without the edit", "With it", "Difference [95 %]")
        rows, facts = [], []
        for name, measure in SCORES.items():
            if (score := getattr(self, name)) is None:
                continue
            difference = with_interval(score.difference, score.interval, "+.2f")
            rows.append((measure.title, f"{score.before:.2f}", f"{score.after:.2f}", difference))
            facts.append(f"- {measure.title}: `{score.signature}`. {_INTERVAL}\n")
        facts.append(f"- chrF of the translations with the edit against those without it: {self.similarity:.2f}.\n")
        if self.said is not None:
            facts.append(f"- The edited model says for the corrected source: {escape(self.said)}\n")
        return (table(header, rows) + "\n\n" if rows else "") + "".join(facts)

    def save(self, folder: str | os.PathLike) -> None:
        """
        Write `impact.json`, `impact.md` and `impact.html`, one page that needs nothing else.

        Raises:
            EditableFileError: if `folder` is a file.
        """
        markdown = self.markdown()
        title = "Impact of an edit" if self.source is None else f"Impact of {self.source} → {self.target}"
        with whole_folder(folder) as temporary:
            write_json(temporary / IMPACT_NAME, self.to_dict())
            (temporary / "impact.md").write_text(markdown, encoding="utf-8")
            (temporary / "impact.html").write_text(to_html(markdown, title, {}), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ImpactReport":
        """
        Read what `save` wrote.

        Raises:
            EditableFileError: if there is no whole `impact.json` in the folder.
        """
        return read_saved(folder, IMPACT_NAME, cls.from_dict, "ImpactReport.save")


def marked(before: str, after: str) -> tuple[str, str]:
    """Two texts as Markdown, each with the words that the other does not have in spans of code."""

    def mark(part: str, side: int, shared: bool) -> str:
        # A bar would end the table's cell, and a backtick the span.
        return escape(part) if shared or any(sign in part for sign in "`|") else f"`{part}`"

    return mark_words(before, after, mark)


def _pair(correction: Correction) -> dict[str, str]:
    return {"source": correction.source, "target": correction.target}


def _state(asked: AskedCorrection) -> str:
    if asked.holds:
        return "kept" if asked.held else "gained"
    return "lost" if asked.held else "did not hold before"
