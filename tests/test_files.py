"""Folders are written whole or not at all, and what is read from them is whole."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hf_editable import EditableFileError
from hf_editable.runs.files import check_file, check_folder, read_saved, settle, whole_folder, write_json


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


@pytest.fixture(params=["real", "simulated"])
def mounted(request, tmp_path, monkeypatch):
    """A folder that is a mount point, as in a container: nothing is renamed across its border, nor itself."""
    place = tmp_path / "volume"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
    if request.param == "real" and shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode:
        yield place
        subprocess.run(["umount", place], check=True)
        return

    def inside(path):
        return place in Path(path).parents

    def guarded(rename):
        def call(old, new, **options):
            if inside(old) != inside(new) or place in (Path(old), Path(new)):
                raise OSError(errno.EXDEV, "Invalid cross-device link", os.fspath(old), None, os.fspath(new))
            return rename(old, new, **options)

        return call

    for name in ("rename", "replace"):  # as a user may not mount anything
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    yield place


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_a_mount_point(mounted):
    for text in ("one", "two"):
        with whole_folder(mounted) as folder:
            assert "a.txt" not in contents(mounted) or (mounted / "a.txt").read_text() == "one"
            (folder / "sub").mkdir()
            for name in ("a.txt", "sub/b.txt"):
                (folder / name).write_text(text)
        assert contents(mounted) == {"a.txt": text, "sub/b.txt": text}
    with whole_folder(mounted, alone=True) as folder:
        (folder / "a.txt").write_text("three")
    assert [path.name for path in mounted.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("length", [254, 255])
def test_a_name_as_long_as_may_be(tmp_path, length):
    place = tmp_path / ("n" * length)
    for text in ("one", "two"):
        with whole_folder(place) as folder:
            (folder / "a.txt").write_text(text)
    assert contents(tmp_path) == {f"{place.name}/a.txt": "two"}


def read_only(tmp_path, monkeypatch):
    """As a read-only file system answers; rights do not stop everyone."""

    def refuse(path, *rest, **options):
        raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    return tmp_path / "out"


def full(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", lambda *_: os.write(os.open("/dev/full", os.O_WRONLY), b"1"))
    return tmp_path / "out"


def dangling(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("nowhere")
    return tmp_path / "link"


def file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (file, "file' is a file"),
        (lambda *given: file(*given) / "a" / "b", "b' is under '.*file', which is a file"),
        (dangling, "link' is a link to nothing"),
        (lambda *given: dangling(*given) / "a", "a' is under '.*link', which is a link to nothing"),
        (lambda tmp_path, _: tmp_path / ("n" * 256), r"cannot be written \(File name too long\)"),
        (lambda tmp_path, _: tmp_path / "a" / ("n" * 300) / "b", r"cannot be written \(File name too long\)"),
        (lambda tmp_path, _: tmp_path.joinpath(*["n" * 200] * 30), r"cannot be written \(File name too long\)"),
        (lambda tmp_path, _: f"{tmp_path}/a\0b", r"cannot be written \(embedded null byte\)"),
        (lambda *_: "/proc/1/out", "cannot be written"),
        (lambda *_: "/dev/null", "/dev/null' is a file"),
        (read_only, r"cannot be written \(Read-only file system\)"),
        (full, r"cannot be written \(No space left on device\)"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, place, reason):
    place = place(tmp_path, monkeypatch)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(EditableFileError, match=reason):
        check_folder(place)
    with pytest.raises(EditableFileError, match=reason), whole_folder(place):
        pytest.fail("the work began")
    assert sorted(tmp_path.iterdir()) == before


def test_what_can_be_written_is_tried_and_left_as_it_is(tmp_path):
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_folder(tmp_path) == tmp_path and check_file(tmp_path / "a" / "b.csv").name == "b.csv"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"), [(".", "is no file"), ("n" * 256, "File name too long"), ("a\0b", "null")]
)
def test_a_file_that_cannot_be_written(tmp_path, name, reason):
    with pytest.raises(EditableFileError, match=reason):
        check_file(os.path.join(tmp_path, name))
    with pytest.raises(EditableFileError, match="/dev/full' is no file"):
        check_file("/dev/full")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), RuntimeError("I/O error (os error 28)")])
def test_a_file_system_that_becomes_full_is_told(tmp_path, error):
    told = pytest.raises(EditableFileError, match=r"out' could not be written \(No space left on device\)")
    with told, whole_folder(tmp_path / "out"):
        raise error
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_told_before_anything_moves(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(EditableFileError, match="b' is a folder, and is in the way"), whole_folder(tmp_path) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["b"]


# Writes to as many folders as it takes calls that change the file system; killed at the first call, at the second, ...
KILLED = """
import os, signal, sys
from pathlib import Path
from hf_editable.runs.files import whole_folder

def counted(call):
    def counting(*given, **options):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **options)
    return counting

for left in range(1, 100):
    place = Path(sys.argv[1], str(left), "out")
    (place / "d" if sys.argv[2] else place.parent).mkdir(parents=True)
    for name in ("a.txt", "d/e.txt") if sys.argv[2] else ():
        (place / name).write_text("old")
    if not (child := os.fork()):
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        with whole_folder(place, bool(sys.argv[3])) as folder:
            (folder / "sub").mkdir()
            for name in ("a.txt", "b.txt", "sub/c.txt"):
                (folder / name).write_text("new")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
        break
"""


@pytest.mark.parametrize(("there", "alone"), [("", ""), ("there", ""), ("there", "alone")])
def test_whenever_it_is_killed_a_folder_is_as_before_or_as_after(tmp_path, there, alone):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, there, alone], check=True)
    old = {"a.txt": "old", "d/e.txt": "old"} if there else {}
    new = {"a.txt": "new", "b.txt": "new", "sub/c.txt": "new"}
    unchanged = []
    for count in range(1, len(list(tmp_path.iterdir())) + 1):
        place = tmp_path / str(count) / "out"
        settle(place)
        seen = {name: text for name, text in contents(place).items() if not name.startswith(".")}
        assert seen in (old, new if alone else {**old, **new}), count
        assert place.exists() == (bool(there) or seen != {})
        unchanged.append(seen == old)
        with whole_folder(place):  # clears what is left
            pass
        assert not list(place.parent.rglob(".*")), count
    # Before one of the calls nothing has changed, and after it everything has.
    assert count > 8 and unchanged == sorted(unchanged, reverse=True) and unchanged[0] and not unchanged[-1]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    with whole_folder(tmp_path / "a") as one, whole_folder(tmp_path / "b") as two:
        check_folder(tmp_path)
        for folder in (one, two):
            (folder / "x").write_text("x")
    assert contents(tmp_path) == {"a/x": "x", "b/x": "x"}


def test_a_reader_finishes_what_was_cut_off(tmp_path):
    left = tmp_path / ".out-hf_editable_01234567.added"
    left.mkdir()
    write_json(left / "values.json", [1])
    assert read_saved(tmp_path, "values.json", list, "this test") == [1] and not left.exists()
    left.mkdir()
    (left / "values.json").mkdir()  # cannot be moved over a file
    (left / "values.json" / "x").write_text("x")
    with pytest.raises(EditableFileError, match=r"The files of .* are in '\.out.*cannot be moved \(File exists\)"):
        read_saved(tmp_path, "values.json", list, "this test")
