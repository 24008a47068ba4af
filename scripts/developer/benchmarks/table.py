"""The table of what was measured."""

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[dict[str, Any]]) -> str:
    """
    A Markdown table of rows of the measurements. Ratios above 1 in the parts `edit` and `mining` are how many times
    faster the package is; in `step` how much longer a step with the objective takes; in `scaling` the time against the
    first value's. The ratio of operations is that of matrix products and attention, which both ways cannot do without.

    Args:
        rows (`Sequence[dict]`): what the measurements gave.
    """
    lines = ["| what | package | plain way | ratio | ratio of operations |", "|---|---|---|---|---|"]
    lines += [_timed(row) for row in rows if row["part"] in ("edit", "mining")]
    lines += [_timed(row, of_its_time=True) for row in rows if row["part"] == "step"]
    memory = [row for row in rows if row["part"] == "memory"]
    if memory:
        ways = [name.removesuffix("_bytes") for name in memory[0] if name.endswith("_bytes")]
        lines += ["", f"| peak memory (MB) | {' | '.join(ways)} |", "|---|" + "---|" * len(ways)]
        for row in memory:
            sizes = [_megabytes(row, way) for way in ways]
            lines.append(f"| {row['what']} | {' | '.join(sizes)} |")
    scaling = [row for row in rows if row["part"] == "scaling"]
    if scaling:
        lines += ["", "| scaling | seconds | against the first |", "|---|---|---|"]
        lines += [f"| {row['what']} | {row['package_seconds']:.3f} | {row['ratio']:.2f} × |" for row in scaling]
    return "\n".join(lines)


def _megabytes(row: dict[str, Any], way: str) -> str:
    size = row.get(f"{way}_bytes", "")
    return "more than there was" if size is None else size and f"{size / 1e6:.0f}"


def _timed(row: dict[str, Any], of_its_time: bool = False) -> str:
    ours, plain = row["package_seconds"], row["plain_seconds"]
    ratio = f"{ours / plain:.2f} × its time" if of_its_time else f"{plain / ours:.1f} × faster"
    counted = ""
    if "plain_operations" in row:
        ours, plain = row["package_operations"], row["plain_operations"]
        counted = f"{ours / plain:.2f}" if of_its_time else f"{plain / ours:.1f}"
        counted += f" ({ours / 1e9:.0f} and {plain / 1e9:.0f} GFLOP)"
    return f"| {row['what']} | {row['package_seconds']:.3f} s | {row['plain_seconds']:.3f} s | {ratio} | {counted} |"
