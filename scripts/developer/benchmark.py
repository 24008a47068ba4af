r"""Time edits, training steps and mining against plain ways of doing the same, and take the peak memory of both.

    python scripts/developer/benchmark.py --num_edits 5 --repeats 5 --num_threads 2 \
        --output_dir scripts/results/benchmark
"""

from dataclasses import dataclass, field
from typing import Any

from hf_editable.cli.shared.measuring import command_line
from hf_editable.cli.shared.running import parse_arguments, run_main, tell
from hf_editable.errors import EditableValueError


PARTS = ("edit", "step", "mining", "memory", "scaling", "processes")


@dataclass
class BenchmarkArguments:
    """What to measure, and on what."""

    output_dir: str = field(metadata={"help": "Folder for the results."})
    parts: list[str] | None = field(
        default=None,
        metadata={"help": "What to measure: edit, step, mining, memory, scaling, processes. Default: all."},
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model to take for edits, steps and memory. Default: one with random weights."}
    )
    vocab_size: int = field(default=10_000, metadata={"help": "Vocabulary of the random model, and of sources."})
    encoder_layers: int = field(default=6, metadata={"help": "Encoder layers of the random model."})
    decoder_layers: int = field(default=6, metadata={"help": "Decoder layers of the random model."})
    num_alternatives: int = field(default=32, metadata={"help": "Alternatives of an edit."})
    length: int = field(default=25, metadata={"help": "Tokens of sources and of translations."})
    batch_tokens: int = field(default=4096, metadata={"help": "Target tokens of a training batch."})
    max_steps: int = field(default=10, metadata={"help": "The most steps of an edit."})
    learning_rate: float = field(default=5e-6, metadata={"help": "Step size of edits."})
    sharpness: float = field(
        default=6.0,
        metadata={"help": "Factor of the random model's logits: 1 leaves its predictions almost uniform."},
    )
    edits_per_step: list[int] = field(
        default_factory=lambda: [1, 8], metadata={"help": "Edits of the training steps that are timed."}
    )
    num_edits: int = field(default=5, metadata={"help": "Different edits that are timed."})
    num_sources: int = field(
        default=128, metadata={"help": "Sources that are mined; the plain way, which takes longer, mines a fourth."}
    )
    repeats: int = field(default=5, metadata={"help": "How often each way is timed, in turn; the median counts."})
    num_threads: int | None = field(default=None, metadata={"help": "CPU threads. Default: PyTorch's own choice."})
    seed: int = field(default=0, metadata={"help": "Seed of the weights, the sources and the samples."})

    def __post_init__(self):
        unknown = sorted(set(self.parts or ()) - set(PARTS))
        if unknown:
            raise EditableValueError(f"--parts {' '.join(unknown)}: choose from {', '.join(PARTS)}.")


def _measure(arguments: BenchmarkArguments, part: str) -> list[dict[str, Any]]:
    import benchmarks as benchmark

    names = ("vocab_size", "encoder_layers", "decoder_layers", "num_alternatives", "length", "batch_tokens")
    names += ("max_steps", "learning_rate", "sharpness", "seed", "model_name_or_path")
    workload = benchmark.Workload(**{name: getattr(arguments, name) for name in names})
    repeats = arguments.repeats
    if part == "edit":
        return benchmark.measure_edit(workload, arguments.num_edits, repeats)
    if part == "step":
        return benchmark.measure_step(workload, arguments.edits_per_step, repeats)
    if part == "mining":
        return benchmark.measure_mining(workload, arguments.num_sources, repeats=repeats)
    if part == "memory":
        return benchmark.measure_memory(workload)
    if part == "processes":
        return benchmark.measure_processes(workload)
    return benchmark.measure_scaling(workload, repeats=repeats)


def _benchmark(argv: list[str] | None) -> None:
    import torch

    from benchmarks.table import table
    from hf_editable.runs.files import whole_folder, write_json
    from hf_editable.runs.provenance import machine, versions

    (arguments,) = parse_arguments([BenchmarkArguments], argv, __doc__)
    if arguments.num_threads is not None:
        torch.set_num_threads(arguments.num_threads)
    rows = [row for part in arguments.parts or PARTS for row in _measure(arguments, part)]
    summary = {
        **vars(arguments),
        "command": command_line(argv),
        "machine": machine(torch.device("cpu")),
        "versions": versions(),
    }
    text = table(rows)
    with whole_folder(arguments.output_dir) as folder:
        write_json(folder / "report.json", {"summary": summary, "rows": rows})
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    tell(text, summary=summary, rows=rows)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/developer/benchmark.py`; returns the exit code."""
    return run_main(_benchmark, argv)


if __name__ == "__main__":
    raise SystemExit(main())
