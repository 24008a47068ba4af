"""What is measured of edits, and how sure it is."""

from .base import Measure
from .columns import Column
from .corpus_scores import CorpusScore
from .edit_measures import CorpusMeasure
from .observation import Observation
from .registry import all_measures, register_measure, unregister_measure
from .scored_test_set import ScoredTestSet


__all__ = [
    "Column",
    "CorpusMeasure",
    "CorpusScore",
    "Measure",
    "Observation",
    "ScoredTestSet",
    "all_measures",
    "register_measure",
    "unregister_measure",
]
