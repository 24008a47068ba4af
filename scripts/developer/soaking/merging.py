"""The store under git: commits, clones, and merges that git or a person resolves wrongly."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from .bed import BEAMS, corrections
from .observer import files_of, listed
from .rules import Violation
from .run import Run


def git(folder: Path, *words: str) -> int:
    """Run git in a folder, with no settings of the user; its exit code."""
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    person = ["-c", "user.name=soak", "-c", "user.email=soak@localhost", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *person, *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **own}).returncode


def commit(run: Run) -> None:
    """Commit the store, and hold a clone of it against it."""
    if not run.store.exists():
        return
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--allow-empty", "-m", "edits"]):
        if git(run.store, *words) != 0:
            raise Violation(f"git {words[0]} failed")
    clone = _clone(run)
    if listed(clone) != run.edits or run.observer.check_store(clone, run.edits) != run.hash:
        raise Violation(f"a clone lists {listed(clone)}, and the store {run.edits}")
    if (files := run.meaning(clone)) != run.meaning():
        raise Violation(f"a clone of the store has the files {sorted(files)}, the store {sorted(run.meaning())}")
    run.read("list", "--store", clone)


def merge(run: Run) -> None:
    """An edit in each of two clones, merged: as git leaves it, as somebody does who keeps both, and with one side."""
    if not (run.store / ".git").exists():
        commit(run)
        return
    ours, theirs = _clone(run), _clone(run)
    for clone, (source, target) in zip((ours, theirs), corrections(run.draw, 2), strict=True):
        outcome = run.end(run.start(*run.editing(source, target, clone)), "edit")
        if outcome.code != 0:  # the model does not say it
            return
        git(clone, "add", "--all")
        git(clone, "commit", "--quiet", "-m", source)
    if git(ours, "pull", "--quiet", "--no-rebase", str(theirs)) == 0:
        raise Violation(f"git merges {listed(theirs)[-1]} into {listed(ours)} without a conflict")
    # Git may take a folder that both have removed, and one that each has added, for one that was renamed.
    if git(ours, "diff", "--quiet", "--diff-filter=U", "--", "edits") != 0:
        run.counts["merges in which git mixes the files of two edits"] += 1
        _refuse_all(run, ours)
        return
    sides = {}
    for side in ("ours", "theirs"):
        _refuse_all(run, ours)
        git(ours, "checkout", f"--{side}", "store.json")
        sides[side] = json.loads((ours / "store.json").read_text(encoding="utf-8"))
        run.observer.check_store(ours, listed(ours))
        run.read("apply", ours, "--model_name_or_path", run.model, "--output_dir", run.place("applied"))
        git(ours, "checkout", "--merge", "store.json")
    both = [*sides["ours"]["edits"], sides["theirs"]["edits"][-1]]
    (ours / "store.json").write_text(json.dumps({**sides["ours"], "edits": both}), encoding="utf-8")
    _refuse_all(run, ours)
    _repair(run, ours, both)


def _repair(run: Run, store: Path, entries: list[dict[str, Any]]) -> None:
    """What a merge has left is made anew, asked for by name: all edits of both sides, each on top of the others."""
    outcome = run.end(run.start("repair", store, "--num_beams", BEAMS), "repair", run.signal(0.3))
    if outcome.cut_off:
        outcome = run.end(run.start("repair", store, "--num_beams", BEAMS), "repair")
    if outcome.code == 0:
        came, wanted = listed(store), [[each["corrections"][0]["source"]] for each in entries]
        if [[source for source, _ in each.corrections] for each in came] != wanted:
            raise Violation(f"repairing {entries} came to {came}")
        run.observer.check_store(store, came)
        run.read("check", store)


def _clone(run: Run) -> Path:
    place = run.place("clone")
    if git(run.store.parent, "clone", "--quiet", str(run.store), str(place)) != 0:
        raise Violation("git does not clone the store")
    return place


def _refuse_all(run: Run, store: Path) -> None:
    """A store that is none is refused by whatever would write, or hand on what it says."""
    commands = [
        ["apply", store, "--model_name_or_path", run.model, "--output_dir", run.place("applied")],
        ["export", "--store", store, "--output_dir", run.place("patch")],
        run.editing(*corrections(run.draw, 1)[0], store),
        ["revert", "0001", "--store", store, "--allow_lost", "--num_beams", BEAMS],
        ["check", store],
    ]
    before = files_of(store)
    run.refuse(*run.draw.choice(commands))
    if files_of(store) != before:
        raise Violation("a refused command has changed a merged store")
