"""Stores made to do harm, or damaged by chance: refused in one line, before anything is read or written elsewhere."""

import json
import os
import shutil
import threading

import pytest
from cheap_edits import FOUR, CheapEditor, files, fill
from test_store import change, report

from hf_editable import EditableFileError
from hf_editable.cli.main import main
from hf_editable.operations import EditStore


@pytest.fixture
def path(tmp_path, make_tiny_model):
    """A store with three edits, the last of which was measured; beside it something that is not to be touched."""
    editor = CheapEditor(make_tiny_model())
    store = EditStore.create(tmp_path / "store", editor.model)
    fill(store, editor, FOUR[:2])
    store.add(editor.edit(*FOUR[2]), report())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0001-0123abcd").mkdir()
    (tmp_path / "mine" / "0001-0123abcd" / "thesis.txt").write_text("mine")
    (tmp_path / "thesis.txt").write_text("mine")
    return tmp_path / "store"


def use(path, *lines):
    """What the commands that use a store say, and that none of them takes it."""
    said = set()
    for line in lines or (
        "list --store {0}",
        "check {0}",
        "export --store {0} --output_dir {1}",
        "revert 0003 --store {0}",
    ):
        said.add(main(line.format(path, path.parent / "out").split()))
    assert 0 not in said
    assert not (path.parent / "out").exists()


def told(capsys, message):
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("error: ") and message in line for line in lines), lines


IDS = [
    "../mine/0001-0123abcd",
    "../../etc",
    "/etc",
    ".",
    "",
    "0001",
    "0001-0123abcd/..",
    "0001-0123ABCD",
    "0001-0123abcd\n",
    "٠٠٠١-0123abcd",
]


@pytest.mark.parametrize("id", IDS)
def test_ids_have_one_form(path, id, capsys):
    change(path, edits=lambda edits: [{**edits[0], "id": id}, *edits[1:]])
    before = files(path.parent)
    use(path)
    told(capsys, "is not of the form 0001-ab12cd34")
    assert files(path.parent) == before


TYPES = {
    "edits": {},
    "next_number": 1.5,
    "tensors": [1],
    "versions": {"torch": 2},
    "base_model": ["model"],
    "format_version": "1",
    "base_fingerprint": [],
}
OF_EDITS = {"revision": -1, "steps": "4", "corrections": [], "added": None, "decoded": 1, "success": "yes"}


@pytest.mark.parametrize(
    ("name", "value"), [*TYPES.items(), *((f"edit {name}", each) for name, each in OF_EDITS.items())]
)
def test_values_of_other_types_are_refused(path, name, value, capsys):
    name = name.removeprefix("edit ")
    if name in OF_EDITS:
        change(path, edits=lambda edits: [{**edits[0], name: value}, *edits[1:]])
    else:
        change(path, **{name: value})
    use(path)
    told(capsys, "is damaged")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "null", '{"edits": NaN}', "\ud800", "1" * 5000, "{" + '"a":{' * 50_000]
)
def test_a_manifest_of_anything_is_refused(path, text, capsys):
    (path / "store.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    use(path)
    told(capsys, "is damaged")


def link(place, target):
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(target)


def first(path):
    return next((path / "edits").glob("0001-*"))


def copied(place):
    """A link to a true copy, so that nothing but the link is wrong."""
    aside = place.with_name(f"{place.name}.aside")
    place.rename(aside)
    place.symlink_to(aside)


def fifo(place):
    place.unlink()
    os.mkfifo(place)


def large(place):
    os.truncate(place, 50 * 10**9)


SPOILED = {
    "edits is a link": (lambda path: copied(path / "edits"), "'edits' is a link"),
    "base is a link": (lambda path: copied(path / "base"), "'base' is a link"),
    "store.json is a link": (lambda path: copied(path / "store.json"), "'store.json' is a link"),
    "an edit is a link": (lambda path: copied(first(path)), "is a link"),
    "tensors are a link": (lambda path: copied(first(path) / "edit_model.safetensors"), "is a link"),
    "tensors are a device": (lambda path: link(first(path) / "edit_model.safetensors", "/dev/zero"), "is a link"),
    "tensors are a FIFO": (lambda path: fifo(first(path) / "edit_model.safetensors"), "is no file"),
    "store.json is a FIFO": (lambda path: fifo(path / "store.json"), "'store.json' is no file"),
    "store.json is large": (lambda path: large(path / "store.json"), "has 50.0 GB"),
    "impact.json is a FIFO": (lambda path: fifo(next(path.glob("edits/0003-*/impact.json"))), "is no file"),
    "impact.json is large": (lambda path: large(next(path.glob("edits/0003-*/impact.json"))), "has 50.0 GB"),
    "edits is a file": (
        lambda path: (shutil.rmtree(path / "edits"), (path / "edits").write_text("")),
        "'edits' is no",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_links_and_what_is_no_file_are_refused(path, case, capsys):
    spoil, message = SPOILED[case]
    spoil(path)
    done = threading.Event()
    watch = threading.Timer(20, lambda: done.is_set() or os._exit(9))  # a FIFO would wait for ever
    watch.daemon = True
    watch.start()
    use(path, "list --store {0}", "export --store {0} --output_dir {1}", "revert 0003 --store {0}")
    done.set(), watch.cancel()
    told(capsys, message)
    assert main(["check", str(path)]) == 1
    assert message in "".join(capsys.readouterr())
    assert (path.parent / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [".lock", ".store.json.new"])
def test_what_is_written_follows_no_link(path, name):
    victim = path.parent / "thesis.txt"
    link(path / name, victim)
    try:
        EditStore.open(path).revert("0003")
    except EditableFileError as error:
        assert name == ".lock" and "cannot be written" in str(error)
    assert victim.read_text() == "mine"


def test_clearing_follows_no_link(path):
    (path / "edits" / "0009-0123abcd").symlink_to(path.parent / "mine" / "0001-0123abcd")
    EditStore.open(path).revert("0003")
    assert (path.parent / "mine" / "0001-0123abcd" / "thesis.txt").exists()
    assert not (path / "edits" / "0009-0123abcd").is_symlink()


def test_a_lock_that_is_a_fifo_is_refused_at_once(path):
    os.unlink(path / ".lock")
    os.mkfifo(path / ".lock")
    with pytest.raises(EditableFileError, match=r"cannot be written \(File or stream is not seekable"):
        EditStore.open(path).revert("0003")


IMPACTS = {
    "accepted": "yes",
    "reasons": "none",
    "changed": [{"source": 1, "before": "a", "after": "b"}],
    "asked": [["a", "b"]],
    "bleu": {"before": "1", "after": 2.0, "difference": 1.0, "interval": [0.0, 1.0], "signature": "s"},
    "similarity": None,
    "num_sentences": "7",
    "settings": [],
    "said": 3,
}


@pytest.mark.parametrize("name", IMPACTS)
def test_impact_reports_of_other_types_are_refused(path, name, capsys):
    place = next(path.glob("edits/0003-*/impact.json"))
    place.write_text(json.dumps({**json.loads(place.read_text()), name: IMPACTS[name]}))
    use(path, "list 0003 --store {0}", "check {0}")
    out = capsys.readouterr()
    assert out.err.startswith("error: ") and out.err.count("\n") == 1
    assert "holds no whole impact.json" in out.err and name in out.err
    assert "holds no whole impact.json" in out.out
