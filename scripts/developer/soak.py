"""Do random things to one store for some minutes, with two processes, kills and full disks; check what must hold.

python scripts/developer/soak.py --minutes 10 --seed 0 --output_dir soak

What must hold is kept and read without the package's own code: every edit that was acknowledged is in the store, in
its order, and says what it said; what was cut off is there whole or not at all; a refused command tells why in one
line and changes nothing; checkpoints say what the store says; the base model stays as it is. The exit code is 1 if
anything did not hold; then the output folder has the store as it was before and after, and what was run.
"""

import os
import random
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any


if __name__ == "__main__":  # before torch is imported: processes are forked, which threads do not survive
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }

from hf_editable.cli.shared.measuring import command_line
from hf_editable.cli.shared.running import FAILED, parse_arguments, run_main, tell
from hf_editable.errors import EditableValueError


if TYPE_CHECKING:
    from soaking.run import Run


@dataclass
class SoakArguments:
    """How long, and with what."""

    minutes: float = field(default=10.0, metadata={"help": "How long to go on; operations that began are finished."})
    num_operations: int | None = field(
        default=None, metadata={"help": "The most operations. Default: as many as there is time for."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of all that is drawn: with its number, of each operation."})
    only: list[str] | None = field(default=None, metadata={"help": "Operations to draw from. Default: all."})
    disk_mb: int = field(
        default=48,
        metadata={
            "help": "Size in MB of the disk that the store is on, which is made in memory and gets full, where the "
            "user may mount one; 0 takes a plain folder."
        },
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for soak.json and the evidence. Default: it is only shown."}
    )

    def __post_init__(self):
        for name, least in (("minutes", 0), ("num_operations", 1), ("disk_mb", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise EditableValueError(f"--{name} {value}: it must be {least} or more.")


def _soak(arguments: SoakArguments, folder: Path) -> dict[str, Any]:
    """All operations, in a folder of its own; what they came to."""
    from soaking import bed
    from soaking.observer import Observer
    from soaking.run import Run
    from soaking.workers import warm_up

    bed.build_model(folder / "model")
    (folder / "scratch").mkdir()
    warm_up(folder / "model", folder / "scratch")
    with bed.disk(folder / "disk", arguments.disk_mb) as disk:
        run = Run(folder / "model", disk, folder / "scratch", Observer(folder / "model"))
        violations = _operate(arguments, run)
        run.counts["the disk: mounted" if disk.mounted else "the disk: a plain folder"] += 1
    return {"counts": dict(sorted(run.counts.items())), "violations": violations}


def _operate(arguments: SoakArguments, run: "Run") -> list[dict[str, Any]]:
    """Operations until the time is over; what did not hold."""
    from soaking.operations import draw_operation

    end, violations, number = time.monotonic() + 60 * arguments.minutes, [], 0
    while time.monotonic() < end and number != arguments.num_operations:
        run.draw = random.Random(f"{arguments.seed} {number}")
        name, operation = draw_operation(run, arguments.only) if number else draw_operation(run, ["first"])
        run.counts[f"operation: {name}"] += 1
        run.remember()
        try:
            operation(run)
        except Exception as error:  # what the store holds then is not what anybody expects
            found = {"seed": arguments.seed, "number": number, "operation": name, "violation": repr(error)}
            violations.append({**found, "traceback": traceback.format_exc()})
            sys.stderr.write(f"violation: operation {number}, {name}: {error!r}\n")
            if arguments.output_dir is not None:
                run.keep_evidence(Path(arguments.output_dir) / f"operation-{number}")
            run.begin_anew()
        run.forget()
        number += 1
    return violations


def _run(argv: list[str] | None) -> int:
    from hf_editable.runs.files import check_folder, whole_folder, write_json
    from hf_editable.runs.provenance import versions
    from soaking.operations import OPERATIONS

    (arguments,) = parse_arguments([SoakArguments], argv, __doc__)
    if unknown := sorted(set(arguments.only or ()) - set(OPERATIONS)):
        raise EditableValueError(f"--only {' '.join(unknown)}: choose from {', '.join(OPERATIONS)}.")
    if arguments.output_dir is not None:
        check_folder(arguments.output_dir)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        came = _soak(arguments, Path(folder))
    report = {**vars(arguments), "command": command_line(argv), "versions": versions(), **came}
    if arguments.output_dir is not None:
        with whole_folder(arguments.output_dir) as place:
            write_json(place / "soak.json", report)
    lines = [f"{count:6} {name}" for name, count in came["counts"].items()]
    total = sum(count for name, count in came["counts"].items() if name.startswith("operation: "))
    lines.append(
        f"{total} operations in {(time.monotonic() - started) / 60:.1f} minutes, seed {arguments.seed}: "
        f"{len(came['violations'])} violations."
    )
    tell("\n".join(lines), **report)
    return FAILED if came["violations"] else 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/developer/soak.py`; returns the exit code: 1 if something did not hold."""
    return run_main(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
