"""What commands print: on any encoding, through closed pipes, with nothing in it that a terminal would obey."""

import io
import json
import subprocess
import sys

import pytest

from hf_editable.cli.shared.operating import describe_edits
from hf_editable.cli.shared.printing import LastingStream, run_printing, visible
from hf_editable.cli.shared.running import parse_arguments, run_main, tell
from hf_editable.errors import EditableFileError
from hf_editable.operations.corrections.correction_list import Correction
from hf_editable.operations.store.manifest import StoredEdit


# A command that prints before its work is done, more than a pipe holds, and then does it.
PROGRAM = """
import sys
from pathlib import Path
from hf_editable.cli.shared.running import run_main, tell

def command(argv):
    for count in range(20_000):
        tell(f"{count} \\u2192 done", count=count)
    print("and more", flush=True)
    sys.stderr.write("a warning\\n")
    sys.stderr.flush()
    Path(sys.argv[2]).write_text("saved")

raise SystemExit(run_main(command, sys.argv[1:2]))
"""


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("{} text", 0, b"0 \xe2\x86\x92 done\n"),
        ("{} text | head -n 1", 141, b"0 \xe2\x86\x92 done\n"),
        ("{} text | true", 141, b""),
        ("{} text >&-", 0, b""),
        ("{} text 2>&-", 0, b"0 \xe2\x86\x92 done\n"),
        ("{} text <&- >&- 2>&-", 0, b""),
        ("{} text 2>&1 >/dev/null | true", 0, b""),
        ("{} text >/dev/full", 1, b""),
        ("PYTHONIOENCODING=ascii {} text", 0, rb"0 \u2192 done"),
        ("PYTHONIOENCODING=latin-1:strict {} text", 0, rb"0 \u2192 done"),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {} text", 0, rb"0 \u2192 done"),
    ],
)
def test_the_work_is_done_whoever_reads(tmp_path, shell, code, said):
    place = tmp_path / "result"
    shell = "set -o pipefail; " + shell.format(f'{sys.executable} -c "$PROGRAM"').replace("text", f"text {place}", 1)
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, env={"PROGRAM": PROGRAM, "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == code and place.read_text() == "saved"
    assert done.stdout.startswith(said) and bool(done.stdout) == bool(said)
    told = b"error: The command is done, but what it says cannot be written: No space left on device.\n"
    assert done.stderr.replace(b"a warning\n", b"") == (told if code == 1 else b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_json_is_read_back_from_any_encoding(monkeypatch, encoding):
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", written)
    values = {"source": "Grüße, 你好, 😀, \x1b[2J\x9b\u202e"}

    def command(argv):
        parse_arguments([], argv, None)
        tell("→", **values)

    assert run_main(command, ["--json"]) == 0
    written.flush()
    assert json.loads(written.buffer.getvalue().decode(encoding).splitlines()[-1])["source"] == values["source"]


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_breaks_is_given_up():
    stream = LastingStream(Broken())
    assert stream.write("text") == 4 and isinstance(stream.failure, BrokenPipeError)
    assert stream.write("more") == 4 and stream.flush() is None and stream.encoding is None


@pytest.mark.parametrize(("code", "wanted"), [(0, 141), (3, 3), (1, 1)])
def test_a_failure_of_the_command_counts_more_than_that_of_its_output(monkeypatch, code, wanted):
    monkeypatch.setattr(sys, "stdout", Broken())
    assert run_printing(lambda: print("text") or code) == wanted


def test_help_into_a_closed_pipe_ends_quietly(monkeypatch):
    def command():
        print("help")
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        run_printing(command)
    monkeypatch.setattr(sys, "stdout", Broken())
    assert run_printing(command) == 141


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ü, 你好, عربي, 😀 👩‍👩‍👧\tand\nlines", None),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("over\rwritten\b\0\x7f", r"over\rwritten\x08\x00\x7f"),
        ("\x85\x9b31m\x9d", r"\x85\x9b31m\x9d"),
        ("\u202eabc\u202c \u2066d\u2069 \u2028", r"\u202eabc\u202c \u2066d\u2069 \u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown, capsys):
    wanted = text if shown is None else shown
    assert visible(text) == wanted
    tell(text)
    assert capsys.readouterr().out == wanted + "\n"

    def refuse(argv):
        raise EditableFileError(text)

    assert run_main(refuse, []) == 2
    assert capsys.readouterr().err == f"error: {visible(' '.join(text.split()))}\n"


def test_a_stored_source_cannot_pass_for_a_line_of_its_own(capsys):
    correction = Correction("a\nerror: b\x1b[2J", "c\r\nd")
    edit = StoredEdit(id="0001-00000000", corrections=(correction,), created=None, added="2026-01-01", decoded=True)
    tell(describe_edits([edit]))
    out = capsys.readouterr().out
    assert out.count("\n") == 3 and r"a\nerror: b\x1b[2J" in out and r"→ c\r\nd" in out
