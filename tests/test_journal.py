"""What a run that goes on takes for its own: the rows that it wrote, in their order; one run at a time."""

import errno
import json
import multiprocessing
import os
import time

import pytest

from hf_editable.errors import EditableFileError, EditableValueError
from hf_editable.runs import journal as module
from hf_editable.runs.journal import CHECKSUM, FinishedRows, Journal


ARGUMENTS = {"seed": 0, "edits": "0123456789abcdef"}
ROWS = [{"index": index, "steps": 3 + index, "said": "größer 😀 \ud800", "kl": 0.1 * index} for index in range(4)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    with Journal(path, ARGUMENTS) as journal:
        journal.append(ROWS[:1])
        journal.append(ROWS[1:])
    return path


def read(path, **arguments):
    with Journal(path, {**ARGUMENTS, **arguments}) as journal:
        return journal.rows


def test_rows_come_back_and_others_follow(path):
    assert read(path) == ROWS
    with Journal(path, ARGUMENTS) as journal:
        journal.append([{"index": 4}])
    assert read(path) == [*ROWS, {"index": 4}]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in lines[1:]] == [0, 1, 2, 3, 4] and all(len(row[CHECKSUM]) == 16 for row in lines)
    with pytest.raises(EditableValueError, match="seed was 0 and is now 1"):
        read(path, seed=1)


def test_every_length_of_a_file_goes_on_with_its_whole_lines(path):
    whole = path.read_bytes()
    ends = [number for number, byte in enumerate(whole, 1) if byte == 10]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        left = max(0, sum(end <= length for end in ends) - 1)
        with Journal(path, ARGUMENTS) as journal:
            assert journal.rows == ROWS[:left]
            journal.append(ROWS[left:])
        assert path.read_bytes() == whole


def changed(line, /, **values):
    def change(lines):
        lines[line] = json.dumps({**json.loads(lines[line]), **values})

    return change


def foreign(lines):
    """A row of another run, whole as it is."""
    first = json.loads(lines[0])
    checksum = module._next_checksum("", {"arguments": {**first["arguments"], "seed": 1}})
    row = {"index": 1, "steps": 5}
    lines[2] = json.dumps({**row, CHECKSUM: module._next_checksum(checksum, row)})


DAMAGES = {
    "a number that is none": (changed(2, steps=float("nan")), 3),
    "another number": (changed(2, steps=9), 3),
    "an edit that is not there": (changed(2, index=400), 3),
    "an index of another type": (changed(2, index="1"), 3),
    "a column less": (lambda lines: lines.__setitem__(2, lines[2].replace('"steps": 4, ', "")), 3),
    "other arguments": (changed(0, arguments={"seed": 1}), 1),
    "a row of another run": (foreign, 3),
    "a row twice": (lambda lines: lines.insert(3, lines[2]), 4),
    "a row twice, with other numbers": (lambda lines: lines.append(lines[2].replace('"steps": 4', '"steps": 5')), 6),
    "a row taken out": (lambda lines: lines.pop(2), 3),
    "two in each other's place": (lambda lines: lines.insert(2, lines.pop(3)), 3),
    "no head": (lambda lines: lines.pop(0), 1),
    "an earlier version's": (lambda lines: lines.__setitem__(2, '{"index": 1, "steps": 4}'), 3),
    "no JSON": (lambda lines: lines.__setitem__(2, "not JSON"), 3),
    "a list": (lambda lines: lines.__setitem__(2, "[1]"), 3),
    "a number": (lambda lines: lines.__setitem__(2, "1e999"), 3),
    "a lone surrogate": (changed(2, said="\ud800"), 3),
    "not UTF-8": (lambda lines: lines.__setitem__(2, lines[2].replace("\\u00f6\\u00df", "\udcf6\udcdf")), 3),
    "deeply nested": (lambda lines: lines.__setitem__(2, "[" * 200_000), 3),
    "an empty line": (lambda lines: lines.insert(2, ""), 3),
}


@pytest.mark.parametrize("damage, number", DAMAGES.values(), ids=DAMAGES)
def test_what_the_run_did_not_write_is_refused(path, damage, number):
    lines = path.read_bytes().decode().split("\n")[:-1]
    damage(lines)
    damaged = b"".join(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines)
    path.write_bytes(damaged)
    with pytest.raises(EditableFileError, match=rf"rows.jsonl' is damaged in line {number} \(") as raised:
        read(path)
    message = str(raised.value)
    assert "\n" not in message and len(message) < 500 and path.read_bytes() == damaged
    # The remedy helps.
    path.write_bytes(b"".join(damaged.splitlines(keepends=True)[: number - 1]))
    assert ("Delete it and all lines after it" in message) == (number > 1)
    assert read(path) == ROWS[: max(0, number - 2)]


def test_a_file_of_something_else_stays(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text in ("my notes", "my\nnotes", '{"arguments": 1}\n'):
        path.write_text(text)
        with pytest.raises(EditableFileError, match="is damaged in line 1 .*Delete the file"):
            read(path)
        assert path.read_text() == text


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse", "sparse end", "link in a circle", "read-only"])
def test_what_is_no_plain_file_is_refused_at_once(path, kind):
    if kind == "sparse end":
        os.truncate(path, 50 * 10**9)
    elif kind != "read-only":
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 50 * 10**9)
    elif kind == "link in a circle":
        path.symlink_to(path)
    else:
        path.chmod(0o400)
        if os.access(path, os.W_OK):  # root may write all the same
            return
    start = time.monotonic()
    with pytest.raises(EditableFileError, match="is no file but|damaged in line|cannot be (read|written)") as raised:
        read(path)
    assert time.monotonic() - start < 5 and "\n" not in str(raised.value)


def test_one_run_at_a_time(path):
    """A run in another process has the journal until it is killed."""
    fork = multiprocessing.get_context("fork")
    held = fork.Event()

    def hold():
        with Journal(path, ARGUMENTS) as journal:
            journal.append([{"index": 4}])
            held.set()
            time.sleep(60)

    run = fork.Process(target=hold)
    run.start()
    try:
        assert held.wait(30)
        before = path.read_bytes()
        with pytest.raises(EditableFileError, match="rows.jsonl' is being written by another run. Wait until"):
            Journal(path, ARGUMENTS)
        assert path.read_bytes() == before
    finally:
        run.kill()
        run.join()
    with Journal(path, ARGUMENTS) as journal:
        assert journal.rows == [*ROWS, {"index": 4}]
        with pytest.raises(EditableFileError, match="is being written by another run"):
            FinishedRows(path.parent, path.name, ARGUMENTS)


def test_a_refused_journal_is_left_to_others(path):
    for _ in range(2):
        with pytest.raises(EditableValueError) as raised:
            Journal(path, {})
    assert raised.value is not None and read(path) == ROWS


def test_rows_are_not_written_to_a_file_that_is_gone(path):
    with Journal(path, ARGUMENTS) as journal:
        path.rename(path.with_suffix(".old"))
        with pytest.raises(EditableFileError, match="was taken away while this run wrote it"):
            journal.append([{"index": 4}])
        path.write_text("another")
        with pytest.raises(EditableFileError, match="was taken away"):
            journal.append([{"index": 4}])


def test_a_full_disk_leaves_whole_lines(path):
    class Full:
        """A file with room for 9 bytes more."""

        def __init__(self, file):
            self._file, self._left = file, 9

        def write(self, text):
            if not self._left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self._file.write(text[: self._left])
            self._left -= written
            return written

        def __getattr__(self, name):
            return getattr(self._file, name)

    before = path.read_bytes()
    with Journal(path, ARGUMENTS) as journal:
        whole, journal._file = journal._file, Full(journal._file)
        with pytest.raises(OSError, match="No space left"):
            journal.append([{"index": 4}])
        assert path.read_bytes() == before
        journal._file = whole
        journal.append([{"index": 4}])
    assert read(path) == [*ROWS, {"index": 4}]


def test_without_a_folder_rows_are_in_memory():
    with FinishedRows(None, "rows.jsonl", {}) as finished:
        finished.add(ROWS)
        assert list(finished.by_index) == [0, 1, 2, 3]


def test_file_systems_without_locks_are_told_of(path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", without)
    warned = []
    monkeypatch.setattr(module.logger, "warning", warned.append)
    assert read(path) == ROWS and "without locks: let no other run write" in warned[0]
