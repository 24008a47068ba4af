"""Files that somebody puts into the store, by mistake or to do harm, and that are taken out again."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bed import corrections
from .observer import TENSORS, files_of
from .rules import Violation
from .run import Run


LIMIT = 60.0  # seconds that a command may take to refuse it


@dataclass
class Place:
    """
    Where a hostile file goes.

    Args:
        store (`Path`): the store.
        patch (`Path`): the folder of one of its edits.
        outside (`Path`): a folder that no command is to touch; it holds `canary`, and a `copy` of the store.
    """

    store: Path
    patch: Path
    outside: Path

    def list(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the values of `store.json`."""
        path = self.store / "store.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        change(values)
        path.write_text(json.dumps(values), encoding="utf-8")

    def instead(self, path: Path, make: Callable[[Path], Any]) -> None:
        """Put something in the place of a file or folder."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _sparse(path: Path) -> None:
    os.truncate(path, 50 * 2**30)


def _link(place: Path) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(place)


def _id(values: dict[str, Any], id: str) -> None:
    values["edits"][0]["id"] = id


def _config(place: Place, **values: Any) -> None:
    path = place.patch / "edit_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def _texts(text: bytes) -> Callable[[Place], None]:
    return lambda place: (place.store / "store.json").write_bytes(text)


# With these, no command may say that it has applied, exported or added an edit.
HARMFUL: dict[str, Callable[[Place], Any]] = {
    "an id that leads out": lambda at: at.list(lambda all: _id(all, "../../../outside/copy/edits/x")),
    "an absolute id": lambda at: at.list(lambda all: _id(all, str(at.outside / "copy" / "edits" / at.patch.name))),
    "an id with a line break": lambda at: at.list(lambda all: _id(all, "0001-00000000\nerror: x")),
    "no list of edits": lambda at: at.list(lambda all: all.update(edits=None)),
    "the first edit is missing": lambda at: at.list(lambda all: all["edits"].pop(0)),
    "the first edit twice": lambda at: at.list(lambda all: all["edits"].append(all["edits"][0])),
    "another order": lambda at: at.list(lambda all: all["edits"].reverse()),
    "a list cut off": _texts(b'{"edits": ['),
    "a list of nothing": _texts(b"null"),
    "a deep list": _texts(b"[" * 200_000),
    "no text": _texts(b"\xff\xfe\x00"),
    "an empty list": _texts(b""),
    "a folder for the list": lambda at: at.instead(at.store / "store.json", Path.mkdir),
    "a pipe for the list": lambda at: at.instead(at.store / "store.json", os.mkfifo),
    "a device for the list": lambda at: at.instead(at.store / "store.json", _link(Path("/dev/zero"))),
    "tensors cut off": lambda at: os.truncate(at.patch / TENSORS, 1000),
    "no tensors": lambda at: os.truncate(at.patch / TENSORS, 0),
    "a bit of the tensors": lambda at: _flip(at.patch / TENSORS),
    "tensors of 50 GB": lambda at: _sparse(at.patch / TENSORS),
    "a pipe for tensors": lambda at: at.instead(at.patch / TENSORS, os.mkfifo),
    "a device for tensors": lambda at: at.instead(at.patch / TENSORS, _link(Path("/dev/zero"))),
    "tensors of the base": lambda at: shutil.copy(at.store / "base" / TENSORS, at.patch / TENSORS),
    "a patch of another base": lambda at: _config(at, base_fingerprint="0" * 64),
    "a pipe for a patch": lambda at: at.instead(at.patch / "edit_config.json", os.mkfifo),
    "no patch": lambda at: shutil.rmtree(at.patch),
    "a bit of the base": lambda at: _flip(at.store / "base" / TENSORS),
    "the base cut off": lambda at: os.truncate(at.store / "base" / TENSORS, 1000),
    "no base": lambda at: shutil.rmtree(at.store / "base"),
}
# With these they may, or not.
ODD: dict[str, Callable[[Place], Any]] = {
    "another base": lambda at: at.list(lambda all: all.update(base_fingerprint="0" * 64)),
    "a number beyond all": lambda at: at.list(lambda all: all.update(next_number=10**30)),
    "a number below 0": lambda at: at.list(lambda all: all.update(next_number=-1)),
    "an old number": lambda at: at.list(lambda all: all.update(next_number=1)),
    "a lone surrogate": lambda at: at.list(lambda all: all["edits"][0]["corrections"][0].update(source="\ud800")),
    "a loss without end": lambda at: _config(at, loss_after=float("inf")),
    "a terminal's codes": lambda at: at.list(lambda all: all["edits"][0].update(added="\x1b[2J\x1b]0;x\x07")),
    "a link for the list": lambda at: at.instead(at.store / "store.json", _link(at.outside / "copy" / "store.json")),
    "a link for edits": lambda at: at.instead(at.store / "edits", _link(at.outside / "copy" / "edits")),
    "a link for an edit": lambda at: at.instead(at.patch, _link(at.outside / "copy" / "edits" / at.patch.name)),
    "a link for the lock": lambda at: at.instead(at.store / ".lock", _link(at.outside / "canary")),
    "a folder for the lock": lambda at: at.instead(at.store / ".lock", Path.mkdir),
    "a pipe for the lock": lambda at: at.instead(at.store / ".lock", os.mkfifo),
    "a link for the next list": lambda at: at.instead(at.store / ".store.json.new", _link(at.outside / "canary")),
    "a folder for the next list": lambda at: at.instead(at.store / ".store.json.new", Path.mkdir),
    "a folder like an edit's": lambda at: (at.store / "edits" / "0099-0123abcd").mkdir(),
    "a link like an edit's": lambda at: (at.store / "edits" / "0099-0123abcd").symlink_to(at.outside / "copy"),
    "a note": lambda at: (at.store / "edits" / "readme.txt").write_text("mine", encoding="utf-8"),
    "a note of no text": lambda at: (at.store / os.fsdecode(b"\xff\n")).write_bytes(b"mine"),
}


def hostile(run: Run) -> None:
    """A hostile file, a command, and the store as it was, which has two edits at least."""
    saved, outside = run.place("saved"), run.scratch / "outside"
    shutil.copytree(run.store, saved, symlinks=True)
    outside.mkdir()
    shutil.copytree(run.store, outside / "copy", symlinks=True)
    (outside / "canary").write_text("sings", encoding="utf-8")
    name = run.draw.choice([*HARMFUL, *ODD])
    # What all edits come to is in the last one's tensors, as edits change whole tensors.
    patch = run.store / "edits" / run.edits[-1].folder
    (HARMFUL | ODD)[name](Place(run.store, patch, outside))
    try:
        _try(run, name, outside)
        if name in HARMFUL and run.end(run.start("check", run.store, patience=LIMIT), "check").code != 1:
            raise Violation("`check` does not find it")
    except Violation as violation:
        raise Violation(f"{name}: {violation}") from violation
    finally:
        shutil.rmtree(run.store)
        shutil.copytree(saved, run.store, symlinks=True)
    run.settle()


def _try(run: Run, name: str, outside: Path) -> None:
    around, before = files_of(outside), _sizes(run.store)
    place = run.place("out")
    command = run.draw.choice([
        ["list", "--store", run.store],
        ["apply", run.store, "--model_name_or_path", run.model, "--output_dir", place],
        ["export", "--store", run.store, "--output_dir", place],
        run.editing(*corrections(run.draw, 1)[0]),
        run.reverting(run.edits[0].id, "--allow_lost"),
    ])  # fmt: skip
    process = run.start(*command, patience=LIMIT)
    outcome = run.end(process, f"{command[0]} beside a hostile file")
    if files_of(outside) != around:
        raise Violation(f"files outside of the store have changed, by {outcome}")
    if outcome.code == 0 and name in HARMFUL and command[0] != "list":
        raise Violation(f"not refused: {outcome}")
    if outcome.code != 0 and _sizes(run.store) != before:
        raise Violation(f"refused, and the store has changed: {outcome}")


def _sizes(store: Path) -> dict[str, tuple[int, int, int]]:
    """All that is in a store, but for what is cleared away by whoever writes: without reading it."""
    found = {}
    for place, folders, names in os.walk(store):
        folders[:] = [name for name in folders if name not in (".git", "0099-0123abcd")]
        for name in (*folders, *names):
            state = os.lstat(os.path.join(place, name))
            if name not in (".lock", ".store.json.new", "0099-0123abcd"):
                found[os.path.join(place, name)] = (state.st_mode, state.st_ino, state.st_mtime_ns)
    # Folders get new times from what is cleared away in them.
    return {path: (mode, number, 0 if os.path.isdir(path) else time) for path, (mode, number, time) in found.items()}
