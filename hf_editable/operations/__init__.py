"""What is done with edits every day: weighing them before they are accepted, keeping them, taking them back."""

from .bulk.apply_corrections import BulkSettings, apply_corrections
from .bulk.plan import ConflictPolicy
from .bulk.report import BulkReport, Outcome
from .corrections.correction_list import Conflict, Correction, find_conflicts
from .corrections.mistakes import Mistake, find_mistakes, write_mistakes
from .corrections.readers import CorrectionFormat, read_corrections
from .gate.impact import ImpactGate
from .gate.regression import sample_regression
from .gate.report import AskedCorrection, ChangedTranslation, ImpactReport, ScoreChange
from .store.chain import StoreProblem
from .store.edit_diff import EditDiff, TensorChange
from .store.edit_store import EditStore
from .store.manifest import StoredEdit
from .store.redo import RevertResult
from .store.repair import RepairResult, repair_store


__all__ = [
    "AskedCorrection",
    "BulkReport",
    "BulkSettings",
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
    "RepairResult",
    "RevertResult",
    "ScoreChange",
    "StoreProblem",
    "StoredEdit",
    "TensorChange",
    "apply_corrections",
    "find_conflicts",
    "find_mistakes",
    "read_corrections",
    "repair_store",
    "sample_regression",
    "write_mistakes",
]
