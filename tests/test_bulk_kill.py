"""Runs that are killed at any moment: what they accepted stays, nothing is half there, and the end is the same."""

import copy
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
import torch
from bulk_lists import contents, learn, run, timeless, wanted

from hf_editable.modeling.mixin import EditableMixin
from hf_editable.operations import EditStore
from hf_editable.operations.bulk.report import BulkReport
from hf_editable.operations.bulk.run import BulkRun
from hf_editable.runs.journal import Journal


# A child has all that is loaded and learned here, so it starts at once.
FORK = multiprocessing.get_context("fork")
KILLS = int(os.environ.get("HF_EDITABLE_KILLS", "3"))


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name):
    """Make a process die right after a method's work is done."""
    method = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: die(method(*args, **options)))


def torn_row(journal, rows):
    """Die in the middle of a line."""
    with open(journal._path, "a") as file:
        file.write('{"rows": [{"index": ')
    die()


def second_tear():
    append, count = Journal.append, iter(range(9))
    Journal.append = lambda journal, rows: (torn_row if next(count) == 3 else append)(journal, rows)


MOMENTS = {
    "stored, not noted": lambda: after(EditStore, "add"),
    "a line half written": second_tear,
    "all made, no report": lambda: setattr(BulkRun, "report", die),
    "the model written, not the report": lambda: after(EditableMixin, "save_pretrained"),
    "the report written, not in its place": lambda: after(BulkReport, "save"),
    "all done, not returned": lambda: after(BulkRun, "in_order"),
}


class Runs:
    """Runs of one list in processes of their own."""

    def __init__(self, model, tokenizer, corrections):
        self._job = (model, tokenizer, corrections)

    def start(self, folder, prepare=None, **options):
        """A process that runs, after `prepare` there."""

        def work():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            if prepare is not None:
                prepare()
            run(copy.deepcopy(self._job[0]), *self._job[1:], folder, **options)

        process = FORK.Process(target=work)
        process.start()
        return process

    def finish(self, folder, **options):
        """Run to the end, here."""
        return run(copy.deepcopy(self._job[0]), *self._job[1:], folder, **options)


@pytest.fixture(scope="module")
def runs(make_tiny_model, tiny_tokenizer, tiny_pairs):
    torch.set_num_threads(1)
    return Runs(learn(make_tiny_model(), tiny_tokenizer, tiny_pairs), tiny_tokenizer, wanted(tiny_pairs, 3))


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """A run that nothing disturbs, and how long it takes in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    report = runs.finish(folder)
    start = time.monotonic()
    process = runs.start(tmp_path_factory.mktemp("timed"))
    process.join()
    assert process.exitcode == 0
    return report, folder, time.monotonic() - start


def check_between(folder, accepted):
    """What there is after a kill: a store that opens with edits from the start, and results whole or not at all."""
    stored = []
    if (folder / "store/store.json").exists():
        store = EditStore.open(folder / "store")
        store.check()
        stored = [edit.corrections for edit in store.edits]
        assert stored == accepted[: len(stored)]
    seen = {path.name for path in (folder / "out").iterdir()} if (folder / "out").exists() else set()
    assert {name for name in seen if not name.startswith(".result-")} <= {"rows.jsonl", "result"}
    if "result" in seen:
        names = {"corrections.html", "corrections.json", "corrections.md", "model", "patch"}
        assert {path.name for path in (folder / "out/result").iterdir()} == names
    return len(stored)


def accepted_of(folder):
    return [edit.corrections for edit in EditStore.open(folder / "store").edits]


def check_end(report, folder, whole):
    """That a run came to what it would have come to undisturbed."""
    expected, undisturbed, _ = whole
    assert timeless(report.rows) == timeless(expected.rows)
    assert accepted_of(folder) == accepted_of(undisturbed)
    assert contents(folder / "out/result/model") == contents(undisturbed / "out/result/model")
    patches = [(path / "out/result/patch/edit_model.safetensors").read_bytes() for path in (folder, undisturbed)]
    assert patches[0] == patches[1]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["result", "rows.jsonl"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_a_bad_moment_loses_nothing(runs, whole, tmp_path, moment):
    process = runs.start(tmp_path, MOMENTS[moment])
    process.join()
    assert process.exitcode == -signal.SIGKILL
    stored = check_between(tmp_path, accepted_of(whole[1]))
    assert stored == {"stored, not noted": 1, "a line half written": 2}.get(moment, 3)
    assert not (tmp_path / "out/result").exists()
    check_end(runs.finish(tmp_path), tmp_path, whole)


def test_a_kill_of_a_joint_run_loses_nothing(runs, tmp_path):
    process = runs.start(tmp_path, MOMENTS["stored, not noted"], joint=True)
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(accepted_of(tmp_path)) == 1
    report = runs.finish(tmp_path, joint=True)
    (tmp_path / "again").mkdir()
    expected = runs.finish(tmp_path / "again", joint=True)
    assert timeless(report.rows) == timeless(expected.rows)
    assert contents(tmp_path / "out/result/model") == contents(tmp_path / "again/out/result/model")


def test_kills_at_random_moments_lose_nothing(runs, whole, tmp_path):
    rng, accepted, killed = random.Random(0), accepted_of(whole[1]), 0
    while killed < KILLS:
        folder, stored, before = tmp_path / f"after {killed}", 0, killed
        folder.mkdir()
        while killed < before + 3:
            process = runs.start(folder)
            process.join(rng.uniform(0, whole[2]))
            process.kill()
            process.join()
            now = check_between(folder, accepted)
            assert now >= stored  # what was accepted stays
            stored = now
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            killed += 1
        check_end(runs.finish(folder), folder, whole)
        shutil.rmtree(folder)
