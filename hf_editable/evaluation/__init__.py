"""What an edit costs everything else: BLEU drawdown, and the other measures of edits."""

from .drawdown import evaluate_edits
from .report import EditReport, format_table, plot_drawdown


__all__ = ["EditReport", "evaluate_edits", "format_table", "plot_drawdown"]
