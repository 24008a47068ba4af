"""What an edit costs everything else: BLEU drawdown, and the other measures of edits."""

from .analysis import EditAnalysis, analyze_edits
from .analysis_report import format_analyses, plot_analyses
from .comparison import Comparison, compare_variants
from .drawdown import evaluate_edits
from .edit_variants import editor_variants, parameter_variants
from .generality import GeneralityReport, measure_generality
from .page import build_report
from .report import EditReport, format_table, plot_drawdown
from .sequences import SequenceReport, edit_sequence
from .statistics import PairedComparison, compare_reports
from .tuning import TunedEditor, tune_editor


__all__ = [
    "Comparison",
    "EditAnalysis",
    "EditReport",
    "GeneralityReport",
    "PairedComparison",
    "SequenceReport",
    "TunedEditor",
    "analyze_edits",
    "build_report",
    "compare_reports",
    "compare_variants",
    "edit_sequence",
    "editor_variants",
    "evaluate_edits",
    "format_analyses",
    "format_table",
    "measure_generality",
    "parameter_variants",
    "plot_analyses",
    "plot_drawdown",
    "tune_editor",
]
