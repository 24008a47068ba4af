"""What is done with edits every day: weighing them before they are accepted, keeping them, taking them back."""

from .bulk import apply_corrections
from .bulk_plan import ConflictPolicy
from .bulk_report import BulkReport, Outcome
from .corrections import Conflict, Correction, CorrectionFormat, find_conflicts, read_corrections
from .edit_diff import EditDiff, TensorChange
from .impact import ImpactGate, sample_regression
from .impact_report import AskedCorrection, ChangedTranslation, ImpactReport, ScoreChange
from .manifest import StoredEdit
from .mistakes import Mistake, find_mistakes, write_mistakes
from .redo import RevertResult
from .store import EditStore


__all__ = [
    "AskedCorrection",
    "BulkReport",
    "ChangedTranslation",
    "Conflict",
    "ConflictPolicy",
    "Correction",
    "CorrectionFormat",
    "EditDiff",
    "EditStore",
    "ImpactGate",
    "ImpactReport",
    "Mistake",
    "Outcome",
    "RevertResult",
    "ScoreChange",
    "StoredEdit",
    "TensorChange",
    "apply_corrections",
    "find_conflicts",
    "find_mistakes",
    "read_corrections",
    "sample_regression",
    "write_mistakes",
]
