"""Folders are written whole or not at all."""

import pytest

from hf_editable import EditableFileError
from hf_editable.files import whole_folder


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
