"""All results of a folder as one Markdown report and one self-contained HTML page."""

from dataclasses import dataclass, field
from pathlib import Path

from ..shared.running import parse_arguments, run_main, tell


@dataclass
class ReportArguments:
    """Which results to show, and where to write."""

    results_dir: str = field(
        metadata={"help": "Folder of results: the output of evaluate_edits.py or other scripts, or folders of them."}
    )
    output_dir: str = field(metadata={"help": "Folder for report.md, its pictures, and report.html."})
    title: str | None = field(
        default=None, metadata={"help": "Title of the page. Default: that of README.md in results_dir, or its name."}
    )
    baseline: str = field(
        default="baseline", metadata={"help": "Name of the model that others on the same edits are compared with."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the comparisons' intervals."})


def _build(argv: list[str] | None) -> None:
    from ...reporting.results_page import HTML_NAME, MARKDOWN_NAME, build_report

    (arguments,) = parse_arguments([ReportArguments], argv, __doc__)
    build_report(**vars(arguments))
    folder = Path(arguments.output_dir)
    written = [str(folder / name) for name in (MARKDOWN_NAME, HTML_NAME)]
    tell(f"Written: {', '.join(written)}", written=written)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/build_report.py`; returns the exit code."""
    return run_main(_build, argv)
