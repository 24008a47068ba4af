"""What is done to the store, at random: the commands, lists, the page, two at once, and disks that do not take it."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from . import page
from .bed import BEAMS, corrections
from .hostile import hostile
from .merging import commit, merge
from .observer import hash_of
from .rules import Attempt, Violation
from .run import Run, edit_attempt, revert_attempt
from .workers import Outcome, Process


MOST_EDITS = 6


def _correction(run: Run) -> tuple[str, str]:
    """A new source, the same one again with another target, or both again."""
    known = [one for edit in run.edits for one in edit.corrections]
    kind = run.draw.random()
    if known and kind < 0.2:
        return corrections(run.draw, 1, [run.draw.choice(known)[0]])[0]
    if known and kind < 0.3:
        return run.draw.choice(known)
    return corrections(run.draw, 1)[0]


def edit(run: Run) -> None:
    """One more edit, which may be cut off."""
    correction, signal = _correction(run), run.signal(0.4)
    before = run.meaning()
    outcome = run.end(run.start(*run.editing(*correction)), "edit", signal)
    if outcome.code in (1, 3):
        run.check_unchanged(before, outcome)
    run.settle(edit_attempt(outcome, *correction), clean=outcome.code == 0)


def revert(run: Run) -> None:
    """Take back any edit, the first, one in the middle or the last, which may be cut off; or one that is not there."""
    if not run.edits or run.draw.random() < 0.1:
        run.refuse(*run.reverting(run.draw.choice(["0099", "", "no", "../0001", "0", "*"])))
        return
    id, signal = run.draw.choice(run.edits).id, run.signal(0.4)
    options = ["--allow_lost"] if run.draw.random() < 0.8 else []
    before = run.meaning()
    outcome = run.end(run.start(*run.reverting(id, *options)), "revert", signal)
    if outcome.code in (1, 3):
        run.check_unchanged(before, outcome)
    run.settle(revert_attempt(outcome, id), clean=outcome.code == 0)


def bulk(run: Run) -> None:
    """A list of corrections, in order or as one edit; cut off and begun again until it is done."""
    rows = corrections(run.draw, run.draw.randint(1, 3))
    if run.draw.random() < 0.2:
        rows += corrections(run.draw, 1, [rows[0][0]])  # which contradicts the first
    place, joint = run.place("bulk"), run.draw.random() < 0.3
    argv = [*_bulk_argv(run, rows, place), *(["--joint"] if joint else [])]
    for again in range(4):
        outcome = run.end(run.start(*argv), "bulk", run.signal(0.5) if again < 3 else None)
        run.settle(*_bulk_attempts(run, outcome, rows, joint), clean=outcome.code in (0, 3))
        if not outcome.cut_off:
            break
    if outcome.code in (0, 3):
        run.observer.check_checkpoint(place / "result" / "model", {run.hash})
        if {path.name for path in place.iterdir()} != {"result", "rows.jsonl"}:
            raise Violation(f"{sorted(path.name for path in place.iterdir())} is what {outcome} has left")


def _bulk_argv(run: Run, rows: list[tuple[str, str]], place: Path) -> list[object]:
    """The arguments that apply a list of corrections, which is written to a file."""
    file = place.with_suffix(".jsonl")
    file.write_text("".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in rows))
    model = ["--model_name_or_path", run.model, "--num_beams", BEAMS]
    return ["apply", file, "--store", run.store, *model, "--output_dir", place]


def _bulk_attempts(run: Run, outcome: Outcome, rows: list[tuple[str, str]], joint: bool) -> list[Attempt]:
    earlier = {edit.id for edit in run.edits}
    told = {row["edit"]: None for row in outcome.values.get("rows", ()) if row.get("edit")}
    added = [id for id in told if id not in earlier]
    asked = (tuple(rows),) if joint else tuple((row,) for row in rows)
    unfinished = outcome.code not in (0, 3)
    return [Attempt(asked, added=added, acknowledged=len(added), unfinished=unfinished)]


def apply(run: Run) -> None:
    """The corrected checkpoint of the store, which may be cut off and is made again then."""
    place = run.place("applied")
    argv = ["apply", run.store, "--model_name_or_path", run.model, "--output_dir", place]
    if not run.edits:
        run.refuse(*argv)
        return
    with run.unchanged():
        outcome = run.end(run.start(*argv), "apply", run.signal(0.4))
        if place.exists():
            run.observer.check_checkpoint(place, {run.hash})
        if outcome.cut_off:
            outcome = run.end(run.start(*argv), "apply")
    if outcome.code != 0:
        raise Violation(f"refused: {outcome}")
    run.observer.check_checkpoint(place, {run.hash})


def export(run: Run) -> None:
    """A patch of all edits, of one, or of all up to one."""
    place = run.place("patch")
    argv = ["export", "--store", run.store, "--output_dir", place]
    if not run.edits:
        run.refuse(*argv)
        return
    states = run.observer.weights(run.store, run.edits)
    number = run.draw.randrange(len(run.edits) + 1)
    if number == len(run.edits):
        run.read(*argv)
        came, expected = run.observer.patched(place, states[0]), states[-1]
    else:
        earlier = run.draw.random() < 0.5
        run.read(*argv, run.edits[number].id, *(["--with_earlier"] if earlier else []))
        came, expected = run.observer.patched(place, states[0 if earlier else number]), states[number + 1]
    if hash_of(came) != hash_of(expected):
        raise Violation(f"the patch {place} says something else than the store")


def look(run: Run) -> None:
    """The list of the edits, and one of them."""
    if not run.edits and not run.store.exists():
        run.refuse("list", "--store", run.store)
        return
    run.read("check", run.store)
    came = [each["id"] for each in run.read("list", "--store", run.store).values["edits"]]
    if came != [each.id for each in run.edits]:
        raise Violation(f"`list` names {came}, and the store has {run.edits}")
    if run.edits:
        run.read("list", run.draw.choice(run.edits).id, "--store", run.store)


def load(run: Run) -> None:
    """All edits put into a fresh model, and taken out of it again, by the package's own classes."""
    if not run.store.exists():
        return

    def work() -> int:
        from hf_editable import AutoEditableModelForSeq2SeqLM
        from hf_editable.operations import EditStore

        model = AutoEditableModelForSeq2SeqLM.from_pretrained(run.model).eval()
        hashes = [hash_of({name: model.state_dict()[name] for name in run.observer.base})]
        store = EditStore.open(run.store)
        store.check()
        patch = store.load(model)
        hashes.append(hash_of({name: model.state_dict()[name] for name in run.observer.base}))
        if patch is not None:
            patch.revert(model)
        hashes.append(hash_of({name: model.state_dict()[name] for name in run.observer.base}))
        base = hash_of(run.observer.base)
        return 0 if hashes == [base, run.hash, base] else 3

    with run.unchanged():
        outcome = run.end(run.work("EditStore.load", work), "load")
    if outcome.code != 0:
        raise Violation(f"the store does not load as it says: {outcome}")


@dataclass
class Part:
    """
    A process that does one thing, beside another.

    Args:
        name (`str`): what it does.
        process ([`Process`]): the process.
        tell (`Callable`): what it says of the store, by how it ended.
        written (`Path`, *optional*): the checkpoint that it writes.
    """

    name: str
    process: Process
    tell: Callable[[Outcome], list[Attempt]]
    written: Path | None = None


def _part(run: Run, name: str) -> Part:
    """Start a process that edits, takes back any edit, applies a list, is at the page, or reads."""
    if name == "edit" or (not run.edits and name in ("revert", "read")):
        correction = _correction(run)
        return Part("edit", run.start(*run.editing(*correction)), lambda end: [edit_attempt(end, *correction)])
    if name == "revert":
        id = run.draw.choice(run.edits).id
        return Part(name, run.start(*run.reverting(id, "--allow_lost")), lambda end: [revert_attempt(end, id)])
    if name == "page":
        folder = run.place("page")
        todo, log = page.steps(run.draw, run.draw.randint(3, 8)), folder.with_suffix(".log")
        work = page.session(run.model, run.store, folder, todo, log)
        return Part(name, run.work(f"page: {todo}", work), lambda end: page.attempts(log))
    if name == "bulk":
        rows, place = corrections(run.draw, 2), run.place("bulk")
        argv = _bulk_argv(run, rows, place)
        return Part(name, run.start(*argv), lambda end: _bulk_attempts(run, end, rows, False))
    place = run.place("applied")
    argv = ["apply", run.store, "--model_name_or_path", run.model, "--output_dir", place]
    return Part(name, run.start(*argv), lambda end: [], place)


def visit(run: Run) -> None:
    """Somebody at the page, interrupted now and then."""
    part = _part(run, "page")
    run.settle(*part.tell(run.end(part.process, "page", run.signal(0.5))))


def together(run: Run) -> None:
    """Two at once: each edits, takes back, applies a list, is at the page or reads, and one may be cut off."""
    names = run.draw.choices(["edit", "revert", "bulk", "page", "read"], (4, 2, 2, 2, 3), k=2)
    _both(run, [_part(run, name) for name in names])


def first(run: Run) -> None:
    """A new store, of which two make the first edit at once."""
    run.begin_anew()
    _both(run, [_part(run, name) for name in ("edit", run.draw.choice(["edit", "edit", "page"]))])


def _both(run: Run, parts: list[Part]) -> None:
    before, edited, signals = run.hash, bool(run.edits), [run.signal(0.4), None]
    run.draw.shuffle(signals)
    ends = [run.end(part.process, f"{part.name} beside", signal) for part, signal in zip(parts, signals, strict=True)]
    run.settle(*(attempt for part, end in zip(parts, ends, strict=True) for attempt in part.tell(end)))
    # At the page, edits come and go, and any of them may have been in the model.
    at_page = any(part.name == "page" for part in parts)
    for part, end in zip(parts, ends, strict=True):
        if part.written is not None and end.code == 0:
            found = {hash_of(run.observer.read_weights(part.written))} if at_page else set()
            run.observer.check_checkpoint(part.written, {before, run.hash, *found})
        elif part.written is not None and not end.cut_off and edited and run.edits and not at_page:
            raise Violation(f"a reader is refused while others write: {end}")


def full_disk(run: Run) -> None:
    """An edit, a revert or a checkpoint where the disk is full before its end, or a file gets too large."""
    left = run.draw.randrange(200_000)
    room = run.disk.full(left) if run.disk.mounted and run.draw.random() < 0.7 else None
    most = left if room is None else None
    correction, place = _correction(run), run.disk.folder / "applied"
    id = run.draw.choice(run.edits).id if run.edits else None
    name = run.draw.choice(["edit", "edit", "revert", "apply"]) if id else "edit"
    argv = {
        "edit": lambda: run.editing(*correction),
        "revert": lambda: run.reverting(id, "--allow_lost"),
        "apply": lambda: ["apply", run.store, "--model_name_or_path", run.model, "--output_dir", place],
    }[name]()
    before = run.meaning()
    with room or nullcontext():
        outcome = run.end(run.start(*argv, most_bytes=most), f"{name} on a full disk")
    if outcome.code != 0:
        run.check_unchanged(before, outcome)
    if name == "apply":
        run.settle()
        if outcome.code == 0:
            run.observer.check_checkpoint(place, {run.hash})
            shutil.rmtree(place)
        if more := set(os.listdir(run.disk.folder)) - {run.store.parent.name}:
            raise Violation(f"{sorted(more)} is left after {outcome}")
    else:
        run.settle(edit_attempt(outcome, *correction) if name == "edit" else revert_attempt(outcome, id))


def read_only(run: Run) -> None:
    """A store that cannot be written is read, and all that would change it is refused."""
    if not run.disk.can_be_read_only:
        run.counts["not possible here: read-only"] += 1
        return
    with run.disk.read_only():
        if run.edits:
            look(run)
            export(run)
            run.refuse(*run.reverting(run.draw.choice(run.edits).id, "--allow_lost"))
        run.refuse(*run.editing(*_correction(run)), codes=(1, 3))


def refused(run: Run) -> None:
    """What no command takes: places that cannot be, empty texts, another model, the base model as the output."""
    out = ["--output_dir", run.place("out")]
    model = ["--model_name_or_path", run.model]
    argv = run.draw.choice([
        run.editing("", "the dog sees"),
        run.editing("der hund sieht", " "),
        [*run.editing("der hund sieht", "the dog buys"), "--num_beams", "0"],
        [*run.editing("der hund sieht", "the dog buys"), "--output_dir", run.model / "config.json"],
        ["edit", "--source", "der hund", "--target", "the dog", "--store", run.store, "--model_name_or_path", "none"],
        ["edit", "--source", "der hund", "--target", "the dog", "--store", run.model / "config.json", *model],
        ["apply", run.store, *model, "--output_dir", run.model],
        ["apply", run.store, *model, "--output_dir", run.store],
        ["apply", run.store, *model, "--output_dir", run.store / "edits"],
        ["apply", run.store / "missing.csv", *model, *out],
        ["apply", run.store / "edits", *model, *out],
        ["export", "0099", "--store", run.store, *out],
        ["export", "--store", run.store, "--output_dir", run.store / "store.json" / "patch"],
        ["list", "0099", "--store", run.store],
        ["list", "--store", run.model],
    ])  # fmt: skip
    run.refuse(*argv, codes=(1, 2))
    run.settle()


OPERATIONS = {
    "edit": (edit, 20),
    "revert": (revert, 10),
    "bulk": (bulk, 6),
    "apply": (apply, 6),
    "export": (export, 5),
    "look": (look, 4),
    "load": (load, 5),
    "page": (visit, 6),
    "together": (together, 14),
    "first": (first, 4),
    "full disk": (full_disk, 6),
    "read-only": (read_only, 3),
    "refused": (refused, 8),
    "git": (commit, 3),
    "merge": (merge, 3),
    "hostile": (hostile, 10),
}


def draw_operation(run: Run, only: list[str] | None) -> tuple[str, Callable[[Run], None]]:
    """An operation of those that are chosen, by its name and as a function. From a full store, an edit is taken."""
    names = only or list(OPERATIONS)
    name = run.draw.choices(names, [OPERATIONS[each][1] for each in names])[0]
    if len(run.edits) > MOST_EDITS:
        name = "revert"
    elif name == "hostile" and len(run.edits) < 2:
        name = "edit"
    return name, OPERATIONS[name][0]
