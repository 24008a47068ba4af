"""The measures that every report has."""

import statistics
from collections.abc import Sequence
from typing import Any

from .base import Measure, Row, says
from .columns import with_interval
from .corpus_scores import CorpusBleu, CorpusChrf, CorpusScore
from .observation import Observation
from .scored_test_set import ScoredTestSet


class _WellKnown(Measure):
    """A measure that the guides explain, so that reports need not."""

    interval = False

    def facts(self, summary: Row) -> list[str]:
        """See [`Measure`]."""
        return []


class CorpusMeasure(_WellKnown):
    """
    Base class of scores of a whole translated test set: after each edit in the rows, before any in the summary.

    A subclass has a `name` and defines `corpus_score`. A registered one is also in each point of [`edit_sequence`].
    """

    unit = "points"
    greater_is_better = True

    def corpus_score(self, before: ScoredTestSet) -> CorpusScore:
        """The score of the translations before any edit, which gives those of other translations too."""
        raise NotImplementedError(f"{type(self).__name__} has no corpus_score().")

    def scorer(self, before: ScoredTestSet) -> CorpusScore:
        """What `corpus_score` gives, computed once for a test set."""
        if self.name not in before.scorers:
            before.scorers[self.name] = self.corpus_score(before)
        return before.scorers[self.name]

    def value(self, seen: Observation) -> float:
        """The score after the edit."""
        if self.name not in seen.scores:
            seen.scores[self.name] = self.scorer(seen.before).score_of(seen.translations)
        return seen.scores[self.name]

    def summary(self, rows: Sequence[Row], seed: int = 0, before: ScoredTestSet | None = None) -> dict[str, Any]:
        """The score before any edit, and how it is computed."""
        return {self.summary_key: self.scorer(before).score, **self.signature(before)}

    def signature(self, before: ScoredTestSet) -> dict[str, str]:
        """How the score is computed, as reports have it."""
        return {f"{self.summary_key}_signature": self.scorer(before).signature}


class Bleu(CorpusMeasure):
    """BLEU of the test set, by sacrebleu."""

    name = card_type = "bleu"
    heading = card_name = "BLEU"

    def corpus_score(self, before: ScoredTestSet) -> CorpusScore:
        """See [`CorpusMeasure`]."""
        return CorpusBleu(before.references, before.translations, before.bleu_tokenize, before.lowercase)


class Chrf(CorpusMeasure):
    """chrF2 of the test set, by sacrebleu."""

    name = "chrf"
    heading = "chrF"
    in_table = in_card = False

    def corpus_score(self, before: ScoredTestSet) -> CorpusScore:
        """See [`CorpusMeasure`]."""
        return CorpusChrf(before.references, before.translations, before.lowercase)


class Drawdown(_WellKnown):
    """
    A corpus score before an edit minus that after it (paper, section 4.3).

    Args:
        score ([`CorpusMeasure`]): the score.
    """

    unit = "points"
    greater_is_better = False
    interval = True

    def __init__(self, score: CorpusMeasure):
        self.score = score

    def value(self, seen: Observation) -> float:
        """See [`Measure`]."""
        return self.score.scorer(seen.before).score - self.score.value(seen)


class BleuDrawdown(Drawdown):
    """The drawdown of BLEU, with intervals over test sentences too; see [`CorpusScore`]."""

    name = "drawdown"
    heading = "Drawdown"
    card_type = "bleu_drawdown"
    card_name = "Mean BLEU drawdown of an edit"

    def values(self, seen: Observation) -> dict[str, Any]:
        """See [`Measure`]."""
        interval = self.score.scorer(seen.before).difference_interval(seen.changes, seed=seen.before.seed)
        return {**super().values(seen), "drawdown_interval": interval}

    def summary(self, rows: Sequence[Row], seed: int = 0, before: ScoredTestSet | None = None) -> dict[str, Any]:
        """See [`Measure`]; the rows have the `changes` of their edits."""
        both = self.score.scorer(before).mean_difference_interval([row["changes"] for row in rows], seed=seed)
        return {
            **super().summary(rows, seed, before),
            "mean_absolute_difference": statistics.fmean(abs(row[self.name]) for row in rows),
            "drawdown_interval_with_sentences": both,
        }

    def facts(self, summary: Row) -> list[str]:
        """See [`Measure`]."""
        fact = f"BLEU: `{summary['bleu_signature']}`. Mean absolute change: {summary['mean_absolute_difference']:.3f}."
        if (both := summary["drawdown_interval_with_sentences"]) is not None:
            fact += f" Interval of the drawdown over edits and sentences: [{both[0]:.2f}, {both[1]:.2f}]."
        return [fact]


class ChrfDrawdown(Drawdown):
    """The drawdown of chrF."""

    name = "chrf_drawdown"
    heading = "chrF drawdown"
    in_table = in_card = False

    def facts(self, summary: Row) -> list[str]:
        """See [`Measure`]."""
        drawdown = with_interval(summary["chrf_drawdown"], summary["chrf_drawdown_interval"])
        return [f"chrF: {summary['chrf']:.2f}, drawdown {drawdown}, `{summary['chrf_signature']}`."]


class Success(_WellKnown):
    """Whether the target outranks every alternative after the edit, `l_e ≤ 0`."""

    name, key = "success", "success_rate"
    greater_is_better = True
    heading, form = "Success", ".1%"
    card_type, card_name = "edit_success_rate", "Edits that outrank every alternative"

    def value(self, seen: Observation) -> bool:
        """See [`Measure`]."""
        return seen.result is not None and seen.result.success


class DecodeSuccess(_WellKnown):
    """Whether beam search says the target after the edit."""

    name, key = "decode_success", "decode_success_rate"
    greater_is_better = True
    heading, form = "Decode success", ".1%"
    card_type, card_name = "edit_decode_success_rate", "Edits that beam search follows"

    def value(self, seen: Observation) -> bool:
        """See [`Measure`]."""
        return seen.said is not None and says(seen.said, seen.edit["target"])


class Steps(_WellKnown):
    """How many steps the edit took; of one that failed, it is not known."""

    name, key, unit = "steps", "mean_steps", "steps"
    greater_is_better = False
    heading = "Steps"
    card_type, card_name = "edit_steps", "Mean steps of an edit"

    def value(self, seen: Observation) -> int | None:
        """See [`Measure`]."""
        return None if seen.result is None else seen.result.steps


class Milliseconds(_WellKnown):
    """How long the edit took: the median over edits, and the mean."""

    name, key, unit = "milliseconds", "milliseconds_median", "ms"
    greater_is_better = False
    heading, form = "ms per edit", ".0f"
    in_card = False

    def value(self, seen: Observation) -> float:
        """See [`Measure`]."""
        return seen.milliseconds

    def summary(self, rows: Sequence[Row], seed: int = 0, before: ScoredTestSet | None = None) -> dict[str, Any]:
        """See [`Measure`]."""
        times = [row[self.name] for row in rows]
        return {"milliseconds_median": statistics.median(times), "milliseconds_mean": statistics.fmean(times)}


class Changed(_WellKnown):
    """How many test translations the edit changes; in the summary, which share of them."""

    name, key, unit = "changed", "changed_rate", "sentences"
    greater_is_better = False
    heading, form = "Changed", ".1%"
    in_card = False

    def value(self, seen: Observation) -> int:
        """See [`Measure`]."""
        return len(seen.changes)

    def summary(self, rows: Sequence[Row], seed: int = 0, before: ScoredTestSet | None = None) -> dict[str, Any]:
        """See [`Measure`]."""
        return {self.summary_key: statistics.fmean(row[self.name] for row in rows) / len(before)}


class Divergence(_WellKnown):
    """How far the edited model's predictions of the test references are from the model's: `KL(model || edited)`."""

    name, unit = "kl", "nats a token"
    greater_is_better = False
    heading, form = "KL", ".4f"
    in_card = False

    def value(self, seen: Observation) -> float:
        """See [`Measure`]."""
        return seen.kl


BLEU, CHRF = Bleu(), Chrf()
BLEU_DRAWDOWN, CHRF_DRAWDOWN = BleuDrawdown(BLEU), ChrfDrawdown(CHRF)
SUCCESS, DECODE_SUCCESS = Success(), DecodeSuccess()
STEPS, MILLISECONDS = Steps(), Milliseconds()
CHANGED, KL = Changed(), Divergence()
# In the order of the paper's Table 6.
BUILT_IN = (
    BLEU, BLEU_DRAWDOWN, CHRF, CHRF_DRAWDOWN, SUCCESS, DECODE_SUCCESS, STEPS, MILLISECONDS, CHANGED, KL,
)  # fmt: skip
