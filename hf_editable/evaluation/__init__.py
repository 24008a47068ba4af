"""What an edit costs everything else: BLEU drawdown, and the other measures of edits."""

from ..measures.statistics import PairedComparison, compare_reports
from ..reporting.analysis_plots import format_analyses, plot_analyses
from ..reporting.analysis_report import EditAnalysis
from ..reporting.comparison_report import Comparison
from ..reporting.edit_report import EditReport, format_table, plot_drawdown
from ..reporting.generality_report import GeneralityReport
from ..reporting.results_page import build_report
from ..reporting.sequence_report import SequenceReport
from ..reporting.tuned_editor import TunedEditor
from .analysis import analyze_edits
from .comparison import compare_variants
from .edit_variants import optimizer_variants, parameter_variants
from .generality import measure_generality
from .sequences import edit_sequence
from .settings import EvaluationSettings
from .single_edits import evaluate_edits
from .tuning import TuningSettings, tune_editor


__all__ = [
    "Comparison",
    "EditAnalysis",
    "EditReport",
    "EvaluationSettings",
    "GeneralityReport",
    "PairedComparison",
    "SequenceReport",
    "TunedEditor",
    "TuningSettings",
    "analyze_edits",
    "build_report",
    "compare_reports",
    "compare_variants",
    "edit_sequence",
    "evaluate_edits",
    "format_analyses",
    "format_table",
    "measure_generality",
    "optimizer_variants",
    "parameter_variants",
    "plot_analyses",
    "plot_drawdown",
    "tune_editor",
]
