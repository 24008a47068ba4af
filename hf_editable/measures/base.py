"""What a measure of edits is: a value of each edit, a summary over all of them, a column, a line in a card."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .columns import Column
from .observation import Observation
from .scored_test_set import ScoredTestSet
from .statistics import bootstrap_interval


Row = Mapping[str, Any]


class Measure:
    """
    Base class of measures of edits. A subclass has a `name` and defines `value`; all else has a default.

    Once it is registered ([`register_measure`]), its values are in the rows of [`evaluate_edits`], and its summary in
    the report, its table and the model's card.

    Attributes:
        name (`str`): the key of its values in the rows: letters, digits and underscores.
        unit (`str`, *optional*, defaults to `""`): what its values are counted in, such as `"characters"`.
        greater_is_better (`bool`, *optional*): `None` where it is neither good nor bad.
        arguments (`dict[str, Any]`, *optional*):
            what its values depend on beside the edit, as plain JSON values: a run goes on only with the same.
        key (`str`, *optional*): of its summary, in reports; `None` takes the name.
        interval (`bool`, *optional*, defaults to `True`): whether the summary has an interval, under `{key}_interval`.
        heading (`str`, *optional*): of its column in tables; `None` makes one of the name.
        form (`str`, *optional*, defaults to `".2f"`): format specification of the number in its column.
        in_table (`bool`, *optional*, defaults to `True`): whether tables show it.
        card_type (`str`, *optional*): its type in the metrics of a card; `None` takes `edit_{name}`.
        card_name (`str`, *optional*): what cards call it; `None` makes a name of the heading.
        in_card (`bool`, *optional*, defaults to `True`): whether cards have it.

    Example:

    ```python
    >>> from hf_editable.measures import Measure, register_measure

    >>> class MoreWords(Measure):
    ...     name = "more_words"
    ...     unit = "words"
    ...
    ...     def value(self, seen):
    ...         return sum(len(new.split()) - len(old.split()) for _, old, new in seen.changes)

    >>> register_measure(MoreWords())  # doctest: +SKIP
    >>> report = evaluate_edits(model, tokenizer, edits, data["test"])  # doctest: +SKIP
    >>> report.summary["more_words"], report.summary["more_words_interval"]  # doctest: +SKIP
    (1.4, [-0.2, 3.1])
    ```
    """

    name: str
    unit: str = ""
    greater_is_better: bool | None = None
    arguments: Mapping[str, Any] = {}
    key: str | None = None
    interval: bool = True
    heading: str | None = None
    form: str = ".2f"
    in_table: bool = True
    card_type: str | None = None
    card_name: str | None = None
    in_card: bool = True

    def value(self, seen: Observation) -> float | None:
        """
        The measure of one edit, a plain JSON value; `None` where it has none.

        Args:
            seen ([`Observation`]): what was before the edit, and what is after it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no value().")

    def values(self, seen: Observation) -> dict[str, Any]:
        """What the edit's row says of the measure: here its value, by the measure's name."""
        return {self.name: self.value(seen)}

    def summary(self, rows: Sequence[Row], seed: int = 0, before: ScoredTestSet | None = None) -> dict[str, Any]:
        """
        What a report's summary says of the measure: here the mean over the edits that have a value, and its 95 %
        interval by the bootstrap; `None` of fewer than 20 values.

        Args:
            rows (`Sequence[dict[str, Any]]`): one an edit, with what `values` gave; at least one.
            seed (`int`, *optional*, defaults to `0`): of the bootstrap.
            before ([`ScoredTestSet`], *optional*): the test set before any edit.
        """
        known = [row[self.name] for row in rows if row[self.name] is not None]
        summary: dict[str, Any] = {self.summary_key: statistics.fmean(known) if known else None}
        if self.interval:
            summary[f"{self.summary_key}_interval"] = bootstrap_interval(known, seed)
        return summary

    def facts(self, summary: Row) -> list[str]:
        """Sentences under a report's table that say how to read the measure."""
        parts = ["mean over edits", *([f"in {self.unit}"] if self.unit else [])]
        if self.greater_is_better is not None:
            parts.append(f"{'higher' if self.greater_is_better else 'lower'} is better")
        return [f"{self.title}: {', '.join(parts)}."]

    @property
    def summary_key(self) -> str:
        """The key of its summary in reports."""
        return self.key or self.name

    @property
    def title(self) -> str:
        """What it is called, in a word or two."""
        return self.heading or self.name.replace("_", " ").capitalize()

    @property
    def column(self) -> Column | None:
        """Its column in tables; `None` if it has none."""
        if not self.in_table:
            return None
        return Column(
            f"{self.title} [95 %]" if self.interval else self.title, self.summary_key, self.form, self.interval
        )

    def card(self, summary: Row) -> dict[str, tuple[str, Any]]:
        """Its name and value by its type, as the metrics of a card; empty if cards do not have it."""
        if not self.in_card or self.summary_key not in summary:
            return {}
        name = self.card_name or f"{self.title}, mean over edits"
        return {self.card_type or f"edit_{self.name}": (name, summary[self.summary_key])}


def says(translation: str, target: str) -> bool:
    """Whether a translation is the one that was asked for; white space around it does not count."""
    return translation.strip() == target.strip()
