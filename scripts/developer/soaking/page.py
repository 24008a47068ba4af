"""A session of the page on a store: random steps of a user, and Ctrl-C into them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from .bed import BEAMS, corrections
from .observer import hash_of
from .rules import Attempt, Violation


STEPS = ("translate", "propose", "keep", "undo", "undo_last", "refresh")


def steps(draw: random.Random, count: int) -> list[tuple[str, ...]]:
    """What a user does, in whatever order: keeping where nothing is proposed and empty sentences are among it."""
    chosen: list[tuple[str, ...]] = []
    while len(chosen) < count:
        name = draw.choices(STEPS, (2, 2, 1, 1, 1, 1))[0]
        source, target = corrections(draw, 1)[0]
        if draw.random() < 0.1:
            source = draw.choice(["", " \t", "word " * 400, "\ud800", "😀"])
        chosen.append({"translate": (name, source), "propose": (name, source, target)}.get(name, (name,)))
        if name == "propose" and draw.random() < 0.7:
            chosen.append(("keep",))
    return chosen


def session(model: Path, store: Path, folder: Path, todo: list[tuple[str, ...]], log: Path) -> Callable[[], int]:
    """
    The work of a process that takes steps. Each is told to `log` before it begins and when it ends. An interrupt cuts
    off a step, and not the session. After each step the model is to be the base model, bit for bit.
    """

    def work() -> int:
        try:
            with open(log, "a", encoding="utf-8") as file:
                _take(model, store, folder, todo, file)
        except KeyboardInterrupt:  # between two steps
            return 130
        return 0

    return work


def _take(model: Path, store: Path, folder: Path, todo: list[tuple[str, ...]], file: TextIO) -> None:
    from hf_editable.app.sessions import Sessions
    from hf_editable.cli.shared.language_options import LanguageArguments
    from hf_editable.cli.shared.operating import load_text_editor
    from hf_editable.errors import EditableError

    def tell(**row: Any) -> None:
        file.write(json.dumps(row) + "\n")
        file.flush()

    editor = load_text_editor(str(model), LanguageArguments(), BEAMS)
    base = hash_of(editor.model.state_dict())
    try:
        user = Sessions(editor, folder, store_dir=store).open()[1]
    except EditableError as error:
        return tell(refused=str(error))
    for name, *texts in todo:
        proposal = user.proposal if name == "keep" else None
        asked = [proposal.source, proposal.target] if proposal else None
        try:
            # Between the two, another process may take back the last one; then this one takes back another.
            last = [edit.id for edit in user.edits] if name == "undo_last" else []
            tell(begin=name, asked=asked, last=last)
            came = getattr(user, name)(*texts)
        except EditableError as error:
            tell(refused=str(error))
        except KeyboardInterrupt:
            tell(interrupted=name)
        else:
            tell(done=name, id=came.id if name in ("keep", "undo_last") else None)
        if hash_of(editor.model.state_dict()) != base:
            tell(spoiled=name)
            return None
    return None


def attempts(log: Path) -> list[Attempt]:
    """
    What the steps of a session say of the store.

    Raises:
        Violation: if the model was not the base model after a step.
    """
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    found, begun = [], None
    for row in [*rows, {"ended": True}]:
        if "spoiled" in row:
            raise Violation(f"after {row['spoiled']!r} of the page, the model is not the base model: {rows}")
        if "begin" in row:
            begun = row
        elif begun is not None:
            found += _attempts(begun, row)
            begun = None
    return found


def _attempts(begun: dict[str, Any], row: dict[str, Any]) -> list[Attempt]:
    asked = (((begun["asked"][0], begun["asked"][1]),),) if begun["asked"] else ()
    if "refused" in row:
        return []
    if "done" in row and begun["begin"] == "keep":
        return [Attempt(asked, added=[row["id"]], acknowledged=1)]
    if "done" in row and begun["begin"] == "undo_last":
        return [Attempt(removed=frozenset([row["id"]]))]
    # What was last when the step took it back is not known if others write too.
    removing = frozenset(begun["last"])
    return [Attempt(asked, removing=removing, unfinished=True)] if asked or removing else []
