"""Make the table of model families in hf_editable/docs/models.md from the results of their tests.

python scripts/developer/families_table.py --output_dir scripts/results/families
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

from hf_editable.cli.shared.running import parse_arguments, run_main, tell


TESTS = Path(__file__).parents[2] / "tests" / "test_families.py"
COLUMNS = {
    "tail exact": r"test_tail_exact\w*",
    "edit succeeds": "test_edit_succeeds",
    "generate": "test_generate",
    "vanilla load": "test_vanilla_load",
    "training step": "test_training_step",
}
MARKS = {"passed": "✓", "expected": "(✓)", "failed": "✗"}


@dataclass
class FamiliesArguments:
    """Where the table goes."""

    output_dir: str = field(metadata={"help": "Folder for families.json and families.md."})


def outcomes(report: Path) -> dict[str, dict[str, str]]:
    """For each family and column, the worst outcome of its tests: passed, failed as expected, or failed."""
    table: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test, _, arguments = case.get("name").partition("[")
        column = next((name for name, pattern in COLUMNS.items() if re.fullmatch(pattern, test)), None)
        if column is None or not arguments:
            continue
        family = re.fullmatch(r"(?:(?:-1|\[[\d, ]*\])-)?(.+)", arguments.removesuffix("]")).group(1)
        skipped = case.find("skipped")
        outcome = "passed" if skipped is None else "expected"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        row = table.setdefault(family, {})
        row[column] = max(row.get(column, "passed"), outcome, key=list(MARKS).index)
    return table


def markdown(table: dict[str, dict[str, str]]) -> str:
    """The table; `(✓)` where a test is known to fail for a reason outside this project."""
    lines = ["| family | " + " | ".join(COLUMNS) + " |", "|:---|" + ":---:|" * len(COLUMNS)]
    lines += [
        f"| {family} | " + " | ".join(MARKS[row[column]] for column in COLUMNS) + " |" for family, row in table.items()
    ]
    return "\n".join(lines) + "\n"


def _make(argv: list[str] | None) -> int:
    (arguments,) = parse_arguments([FamiliesArguments], argv, __doc__)
    folder = Path(arguments.output_dir)
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(TESTS), "--junitxml", str(report)]
        status = subprocess.run(command, stdout=sys.stderr).returncode
        table = outcomes(report)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    content = {"command": "python scripts/developer/families_table.py", "versions": versions, "families": table}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "families.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "families.md").write_text(markdown(table))
    tell(markdown(table), families=table)
    return status


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/developer/families_table.py`; returns the exit code, that of the tests."""
    return run_main(_make, argv)


if __name__ == "__main__":
    raise SystemExit(main())
