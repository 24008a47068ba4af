"""
Which measures there are. Those of other packages register themselves, when they are imported or by an entry point of
the group `hf_editable.measures`.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import EditableTypeError, EditableValueError
from ..runs.plugins import load_plugins
from .base import Measure, Row
from .edit_measures import BUILT_IN, CorpusMeasure
from .observation import Observation
from .scored_test_set import ScoredTestSet


PLUGINS = "hf_editable.measures"
# What else rows and summaries of reports have.
ROW_KEYS = ("index", "source", "target", "failed", "initial_loss", "loss", "decoded", "changes")
SUMMARY_KEYS = (
    "name", "num_beams", "max_new_tokens", "edit_config", "seed", "editor", "max_rounds", "length_penalty", "machine",
    "versions", "record", "num_edits", "num_test", "failed_edits", "command", "points",
)  # fmt: skip
_MEASURES: dict[str, Measure] = {measure.name: measure for measure in BUILT_IN}


def register_measure(measure: Measure) -> None:
    """
    Make a measure known to evaluations, reports and cards.

    Args:
        measure ([`Measure`]): the measure. Its column comes after those that are there.

    Raises:
        EditableTypeError: if it is no [`Measure`], or its class in place of an instance.
        EditableValueError: if its name is none, or another measure or reports themselves have its name or its key.
    """
    if not isinstance(measure, Measure):
        given = "the class" if isinstance(measure, type) else f"a {type(measure).__name__}:"
        raise EditableTypeError(f"{given} {measure!r} is no measure; give an instance of a subclass of Measure.")
    name = getattr(measure, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise EditableValueError(f"{name!r} is no name of a measure. Give letters, digits and underscores.")
    others = [other for other in _MEASURES.values() if other is not measure]
    if name in (*ROW_KEYS, *(other.name for other in others)):
        raise EditableValueError(f"The rows of reports have {name!r} already. Choose another name for the measure.")
    if (key := measure.summary_key) in (*SUMMARY_KEYS, *(other.summary_key for other in others)):
        raise EditableValueError(f"Summaries of reports have {key!r} already. Choose another key for the measure.")
    _MEASURES[name] = measure


def unregister_measure(name: str) -> None:
    """
    Make a measure unknown again.

    Raises:
        EditableValueError: if none of this name was registered, or it is one that every report has.
    """
    if name not in _MEASURES or _MEASURES[name] in BUILT_IN:
        added = ", ".join(measure.name for measure in added_measures()) or "none"
        raise EditableValueError(f"No measure {name!r} was registered, but {added}.")
    del _MEASURES[name]


def all_measures() -> list[Measure]:
    """
    The measures, those of other packages last.

    Raises:
        EditableImportError: if the entry point of another package cannot be loaded.
    """
    load_plugins(PLUGINS)
    return list(_MEASURES.values())


def added_measures() -> list[Measure]:
    """The measures that were registered, without those that every report has."""
    return [measure for measure in all_measures() if measure not in BUILT_IN]


def corpus_measures() -> list[CorpusMeasure]:
    """The measures that are scores of a whole translated test set."""
    return [measure for measure in all_measures() if isinstance(measure, CorpusMeasure)]


def measure_arguments(measures: Iterable[Measure] | None = None) -> dict[str, Any]:
    """What a journal keeps of the registered measures, or of some, without those that every report has."""
    added = [measure for measure in (all_measures() if measures is None else measures) if measure not in BUILT_IN]
    return {"measures": {measure.name: dict(measure.arguments) for measure in added}} if added else {}


def values_of(seen: Observation) -> dict[str, Any]:
    """
    What a row says of the registered measures.

    Args:
        seen ([`Observation`]): the edit.

    Raises:
        EditableTypeError: if a value is none of JSON.
        EditableValueError: if two measures give values of one name.
    """
    row: dict[str, Any] = {}
    for measure in all_measures():
        _add(row, measure, measure.values(seen), ROW_KEYS)
    return row


def summary_of(rows: Sequence[Row], before: ScoredTestSet) -> dict[str, Any]:
    """
    What a summary says of the registered measures.

    Args:
        rows (`Sequence[dict[str, Any]]`): one an edit, with what `values_of` gave, and its `changes`.
        before ([`ScoredTestSet`]): the test set before any edit.

    Raises:
        EditableTypeError: if a value is none of JSON.
        EditableValueError: if two measures give values of one name.
    """
    summary: dict[str, Any] = {}
    for measure in all_measures():
        _add(summary, measure, measure.summary(rows, before.seed, before), SUMMARY_KEYS)
    return summary


def _add(to: dict[str, Any], measure: Measure, values: dict[str, Any], taken: Sequence[str]) -> None:
    if twice := [key for key in values if key in to or key in taken]:
        raise EditableValueError(f"The measure {measure.name!r} gives {', '.join(twice)}, which are there already.")
    try:
        json.dumps(values)
    except (TypeError, ValueError) as error:
        raise EditableTypeError(
            f"The measure {measure.name!r} gives {values!r:.200}, which JSON cannot hold ({error}). Give numbers of "
            "Python, such as float(value)."
        ) from error
    to.update(values)
