"""A store survives a kill at any moment: what was accepted is there, and nothing half-written is ever listed.

`python tests/test_store_kill.py --rounds 50` kills more often than the tests do, and prints what it found.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cheap_edits import CheapEditor, same, weights_of

from hf_editable.operations import EditStore
from hf_editable.runs.fingerprints import fingerprint


CONTEXT = multiprocessing.get_context("fork")  # a process that imports everything anew takes seconds
WRITES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
MOST = 5


def state(editor):
    return fingerprint(editor.parameters)


def operate(path, model, log, seed):
    """Random edits and reverts without end. Each is told to `log` before it begins, and when it is done."""
    editor, draw = CheapEditor(model), random.Random(seed)
    store = EditStore.open(path)
    store.load(model)
    with open(log, "a") as file:

        def tell(**row):
            file.write(json.dumps(row) + "\n")
            file.flush()

        while True:
            edits = store.edits
            if len(edits) < 2 or (len(edits) < MOST and draw.random() < 0.6):
                result = editor.edit(f"{draw.randrange(8)} x", str(draw.randrange(1000, 9999)))
                tell(begin="add")
                edit = store.add(result)
                result.patch.apply(model)
                tell(
                    done="add", id=edit.id, edits=[*(each.folder for each in edits), edit.folder], state=state(editor)
                )
            else:
                chosen = draw.choice(edits)
                tell(begin="revert", id=chosen.id)
                result = store.revert(chosen.id, editor, allow_lost=True)
                kept = [each.folder for each in edits[: edits.index(chosen)]]
                now = [*kept, *(each.folder for each in result.redone)]
                tell(done="revert", id=chosen.id, edits=now, state=state(editor))


def kill_at(function, seconds):
    """Run a function in a process of its own, and kill that after so many seconds."""
    process = CONTEXT.Process(target=function)
    process.start()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def check_after_kill(path, make_model, accepted, running):
    """
    What must hold: the store opens, all its files are whole, and its edits are those that were accepted, or in
    addition what the operation that was killed had come to.
    """
    store = EditStore.open(path)
    store.check()
    folders = [edit.folder for edit in store.edits]
    finished = folders != accepted["edits"]
    if finished:
        ids, before = [edit.id for edit in store.edits], [name.split(".")[0] for name in accepted["edits"]]
        expected = before + ids[-1:] if running["begin"] == "add" else [id for id in before if id != running["id"]]
        assert ids == expected, f"{running} on {before} left {ids}"
    loaded, stacked = make_model(), make_model()
    store.load(loaded)
    for edit in store.edits:
        store.patch(edit.id).apply(stacked)
    assert same(weights_of(loaded), weights_of(stacked))
    if not finished:
        assert state(CheapEditor(loaded)) == accepted["state"]
    return store, loaded


def check_clearing(path, store, model):
    """The next one that writes clears away all that the killed one left."""
    result = CheapEditor(model).edit("1 x", "4321")
    edit = store.add(result)
    result.patch.apply(model)
    listed = [each.folder for each in store.edits]
    assert sorted(os.listdir(path / "edits")) == sorted(listed)
    assert sorted(os.listdir(path)) == [".gitattributes", ".gitignore", ".lock", "base", "edits", "store.json"]
    return edit, {"edits": listed, "state": state(CheapEditor(model))}


def survive(folder, make_model, rounds, seed=0):
    """Kill a process that works on a store `rounds` times at random moments; counts of what was found."""
    path, draw = Path(folder) / "store", random.Random(seed)
    EditStore.create(path, make_model())
    accepted = {"edits": [], "state": state(CheapEditor(make_model()))}
    ids, counts = set(), {"rounds": rounds, "operations": 0, "left": 0, "unfinished": 0, "committed": 0}
    for number in range(rounds):
        log = Path(folder) / f"log-{number}"
        model = make_model()
        kill_at(lambda model=model, log=log, number=number: operate(path, model, log, number), draw.uniform(0.1, 0.8))
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        done = [row for row in rows if "done" in row]
        running = rows[-1] if rows and "begin" in rows[-1] else {"begin": None}
        accepted = done[-1] if done else accepted
        present = set(os.listdir(path / "edits")) if (path / "edits").exists() else set()
        store, loaded = check_after_kill(path, make_model, accepted, running)
        listed = {edit.folder for edit in store.edits}
        counts["operations"] += len(done)
        counts["unfinished"] += running["begin"] is not None
        counts["committed"] += listed != set(accepted["edits"])
        counts["left"] += bool(present - listed)
        added = {row["id"] for row in done if row["done"] == "add"} | {edit.id for edit in store.edits}
        edit, accepted = check_clearing(path, store, loaded)
        assert edit.id not in ids | added, "an id was given again"
        ids |= added | {edit.id}
    return counts


@pytest.fixture
def made(make_tiny_model, tmp_path):
    """A store with three edits, and the folders it lists."""
    path, editor = tmp_path / "store", CheapEditor(make_tiny_model())
    store = EditStore.create(path, editor.model)
    for source, target in (("1 a", "1001"), ("2 b", "1002"), ("3 c", "1003")):
        result = editor.edit(source, target)
        store.add(result)
        result.patch.apply(editor.model)
    return path, editor


def test_kills_at_random_moments(tmp_path, make_tiny_model):
    counts = survive(tmp_path, make_tiny_model, 10)
    assert counts["operations"] > 0


def die_at(step, folder, work):
    """Do some work, but die of SIGKILL at the given one of the operations on files in a folder."""
    left = [step]

    def count(event, arguments):
        # rmtree names what it removes relative to a descriptor.
        inside = str(arguments[0]).startswith(str(folder)) if event in WRITES else False
        if inside or event in ("os.remove", "os.rmdir"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def run():
        sys.addaudithook(count)
        work()
        os._exit(0)

    process = CONTEXT.Process(target=run)
    process.start()
    process.join()
    return process.exitcode


def add(path, editor):
    EditStore.open(path).add(editor.edit("4 d", "1004"))


def revert(path, editor):
    EditStore.open(path).revert("0002", editor)


@pytest.mark.parametrize(("work", "step"), [(add, 3), (revert, 5)])
def test_kills_at_every_step_of_an_operation(made, make_tiny_model, work, step, tmp_path):
    path, editor = made
    before = [edit.folder for edit in EditStore.open(path).edits]
    accepted = {"edits": before, "state": state(editor)}
    running = {"begin": "add"} if work is add else {"begin": "revert", "id": before[1]}
    outcomes, position = [], 1
    while True:
        copy = tmp_path / f"copy-{position}"
        shutil.copytree(path, copy)
        exitcode = die_at(position, copy, lambda copy=copy: work(copy, editor))
        store, loaded = check_after_kill(copy, make_tiny_model, accepted, running)
        outcomes.append([edit.folder for edit in store.edits] != before)
        check_clearing(copy, store, loaded)
        if exitcode == 0:
            break
        assert exitcode == -signal.SIGKILL
        position += step
    # First nothing of it, from some step on all of it, and never anything between.
    assert outcomes == sorted(outcomes)
    assert outcomes[0] is False
    assert outcomes[-1] is True


def test_a_killed_writer_holds_no_lock(made):
    path, editor = made

    def work():
        from hf_editable.operations.store.files import exclusive

        with exclusive(path, 0):
            time.sleep(60)

    kill_at(work, 0.5)
    EditStore.open(path, lock_timeout=0).add(editor.edit("4 d", "1004"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    import torch

    from conftest import marian_config
    from hf_editable import AutoEditableModelForSeq2SeqLM, EditConfig

    def make():
        torch.manual_seed(0)
        return AutoEditableModelForSeq2SeqLM.from_config(marian_config(24), EditConfig()).eval()

    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(f"{survive(folder, make, arguments.rounds, arguments.seed)}\n")


if __name__ == "__main__":
    main()
