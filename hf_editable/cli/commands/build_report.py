"""Put all results of a folder into one Markdown report and one self-contained HTML page.

hf-editable report --results_dir results --output_dir report
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..shared.running import parse_arguments, run_main, tell


@dataclass
class ReportArguments:
    """Which results to show, and where to write."""

    results_dir: str = field(
        metadata={"help": "Output folder of a command that measures, or a folder that has such folders."}
    )
    output_dir: str = field(metadata={"help": "Folder for report.md, its pictures, and report.html."})
    title: str | None = field(
        default=None, metadata={"help": "Title of the page. Default: that of README.md in results_dir, or its name."}
    )
    baseline: str = field(
        default="baseline",
        metadata={"help": "Name of the model that the others, on the same edits, are compared with."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the intervals of these comparisons."})


def _build(argv: list[str] | None) -> None:
    from ...reporting.results_page import HTML_NAME, MARKDOWN_NAME, build_report

    (arguments,) = parse_arguments([ReportArguments], argv, __doc__)
    build_report(**vars(arguments))
    folder = Path(arguments.output_dir)
    written = [str(folder / name) for name in (MARKDOWN_NAME, HTML_NAME)]
    tell(f"Written: {', '.join(written)}", written=written)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable report`; returns the exit code."""
    return run_main(_build, argv)
