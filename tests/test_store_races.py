"""Processes that make edits of one store at the same time: no edit is lost, and whose was late is told."""

import json
import multiprocessing
import os

import pytest
from cheap_edits import CheapEditor, files, fill, same, weights_of

from hf_editable import EditableFileError, EditPatch, StaleEditError
from hf_editable.cli.commands import edit_translation
from hf_editable.operations import EditStore
from hf_editable.patches.application import take_back


CONTEXT = multiprocessing.get_context("fork")  # a process that imports everything anew takes seconds
PAIRS = [("1 a", "1001"), ("2 b", "1002"), ("3 c", "1003")]


class CommandEditor(CheapEditor):
    """As commands call it; `finished` is called when an edit is made."""

    finished = staticmethod(lambda: None)

    def edit(self, source, target, alternatives=None, keep=()):
        result = super().edit(source, target, keep)
        self.finished()
        return result


def together(work, count):
    """Exit codes of processes that do the work, each with its number and a barrier."""
    barrier = CONTEXT.Barrier(count)
    started = [CONTEXT.Process(target=lambda n=n: os._exit(work(n, barrier))) for n in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    return [process.exitcode for process in started]


def test_of_those_who_create_one_store_one_does(tmp_path, make_tiny_model):
    model = make_tiny_model()

    def create(number, barrier):
        barrier.wait()
        try:
            EditStore.create(path, model)
        except EditableFileError as error:
            return 1 if "holds a store of edits already" in str(error) else 2
        return 0

    for number in range(5):
        path = tmp_path / str(number)
        assert sorted(together(create, 2)) == [0, 1]
        EditStore.open(path).check()


def test_the_first_edits_of_several_are_all_in_the_store(tmp_path, make_tiny_model):
    def add(number, barrier):
        editor = CheapEditor(make_tiny_model())
        result = editor.edit(*PAIRS[number])
        barrier.wait()
        store = EditStore.create(path, editor.model, exist_ok=True)
        while True:
            try:
                store.add(result)
                return 0
            except StaleEditError:
                take_back(editor.model)
                store.load(editor.model)
                result = editor.edit(*PAIRS[number])

    for number in range(3):
        path = tmp_path / str(number)
        assert together(add, 3) == [0, 0, 0]
        store = EditStore.open(path)
        store.check()
        editor = CheapEditor(make_tiny_model())
        store.load(editor.model)
        assert sorted((edit.source, edit.target) for edit in store.edits) == PAIRS
        assert editor.translate([source for source, _ in PAIRS]) == [target for _, target in PAIRS]


@pytest.fixture
def command(tmp_path, make_tiny_model, tiny_tokenizer, monkeypatch):
    """`hf-editable edit` of a pair into a store, with an editor that costs nothing."""
    monkeypatch.chdir(tmp_path)

    def run(pair, finished=CommandEditor.finished):
        editor = CommandEditor(make_tiny_model())
        editor.finished, editor.tokenizer = finished, tiny_tokenizer
        monkeypatch.setattr(edit_translation, "load_text_editor", lambda *given: editor)
        arguments = ["--model_name_or_path", "model", "--store", "store", "--source", pair[0], "--target", pair[1]]
        return edit_translation.main([*arguments, "--json"])

    return run


def test_the_command_makes_its_edit_anew_on_top_of_anothers(command, tmp_path):
    def edit(number, barrier):
        first = [barrier.wait]
        return command(PAIRS[number], lambda: first.pop()() if first else None)

    for _ in range(2):
        assert together(edit, 3) == [0, 0, 0]
        store = EditStore.open("store")
        store.check()
        assert sorted((edit.source, edit.target) for edit in store.edits) == PAIRS
        os.rename("store", f"done-{len(os.listdir())}")
    assert not [name for name in os.listdir() if "not_added" in name]


def test_a_finished_edit_that_cannot_be_added_is_kept(command, capsys, monkeypatch, tmp_path, make_tiny_model):
    def busy(*given, **options):
        raise EditableFileError("The store is being written by another.")

    assert command(PAIRS[0]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(EditStore, "add", busy)
        capsys.readouterr()
        assert command(PAIRS[1]) == 2
    out = capsys.readouterr()
    place = json.loads(out.out)["not_added"]
    assert "being written by another" in out.err and place in out.err
    assert EditPatch.from_pretrained(place).target == "1002"
    EditStore.open("store").add(EditPatch.from_pretrained(place))
    assert [edit.target for edit in EditStore.open("store").edits] == ["1001", "1002"]


def test_an_edit_that_is_stored_is_not_told_to_be_lost(command, capsys, monkeypatch, tmp_path):
    add = EditStore.add

    def add_and_stop(*given, **options):
        add(*given, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(EditStore, "add", add_and_stop)
    assert command(PAIRS[0]) == 130
    assert "not_added" not in json.loads(capsys.readouterr().out)
    assert sorted(os.listdir()) == ["store"] and len(EditStore.open("store").edits) == 1


def test_an_edit_that_is_stale_leaves_the_store_as_it_is(tmp_path, make_tiny_model):
    model = make_tiny_model()
    early = CheapEditor(model).edit("9 x", "1009")
    store = EditStore.create(tmp_path / "store", model)
    fill(store, CheapEditor(model), PAIRS)
    before = files(tmp_path / "store")
    with pytest.raises(StaleEditError, match=r"base with the 3 edits .*after store\.load"):
        store.add(early)
    assert files(tmp_path / "store") == before
    loaded = make_tiny_model()
    assert EditStore.create(tmp_path / "store", loaded, exist_ok=True).edits == store.edits
    assert same(weights_of(loaded), weights_of(make_tiny_model()))
