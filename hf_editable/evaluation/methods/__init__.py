"""Other ways to make an edit, to measure beside the package's own."""

from .base import EditMethod, LookupResult, make_edit, method_arguments, method_name
from .finetuning import FineTuning, LoraTuning
from .lookup import ExactMatchCache
from .penalties import ElasticWeightConsolidation, KLPenaltyEditor, RehearsalEditor
from .verified import VerifiedEditing


__all__ = [
    "EditMethod",
    "ElasticWeightConsolidation",
    "ExactMatchCache",
    "FineTuning",
    "KLPenaltyEditor",
    "LookupResult",
    "LoraTuning",
    "RehearsalEditor",
    "VerifiedEditing",
    "make_edit",
    "method_arguments",
    "method_name",
]
