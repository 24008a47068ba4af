"""Folders are written whole or not at all, and what is read from them is whole."""

import pytest

from hf_editable import EditableFileError
from hf_editable.runs.files import read_saved, whole_folder, write_json


def test_nothing_is_seen_before_the_end(tmp_path):
    with whole_folder(tmp_path / "deep" / "result") as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "deep" / "result").exists()
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["result", "a.txt"]


def test_an_exception_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="midway"), whole_folder(tmp_path / "result") as folder:
        (folder / "a.txt").write_text("new")
        raise RuntimeError("midway")
    assert (tmp_path / "result" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_new_files_replace_old_ones_and_others_stay(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("old")
    with whole_folder(tmp_path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "c.txt").write_text("new")
        (folder / "a.txt").write_text("new")
    assert [(tmp_path / name).read_text() for name in ("a.txt", "b.txt", "sub/c.txt")] == ["new", "old", "new"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(EditableFileError, match="taken' is a file"), whole_folder(tmp_path / "taken"):
        pass
    assert (tmp_path / "taken").read_text() == "mine"


def test_json_comes_back(tmp_path):
    values = {"zwei": ["ä", 0.1], "eins": None}
    write_json(tmp_path / "values.json", values)
    assert "ä" in (tmp_path / "values.json").read_text(encoding="utf-8")
    assert read_saved(tmp_path, "values.json", lambda found: found, "this test") == values


@pytest.mark.parametrize(
    ("text", "build"),
    [
        (None, list),
        ("{", list),
        ("\ud800".encode("utf-8", "surrogatepass"), list),
        ("[" * 100_000, list),
        ("{}", lambda values: values["name"]),
        ("[]", lambda values: values["name"]),
        ("3", list),
        ("{}", lambda values: values.name),
    ],
)
def test_damaged_json_is_an_error(tmp_path, text, build):
    if text is not None:
        (tmp_path / "values.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EditableFileError, match=r"holds no whole values\.json \(.*This test writes one"):
        read_saved(tmp_path, "values.json", build, "This test")
