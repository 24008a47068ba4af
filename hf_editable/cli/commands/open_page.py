"""Open a page in the browser to try edits on: translate, correct, see what else changes, keep or undo, download.

hf-editable app --model_name_or_path model --regression_data data
"""

import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

from ..shared.editor_options import EditorArguments
from ..shared.language_options import LanguageArguments
from ..shared.operating import GateArguments, load_text_editor
from ..shared.running import parse_arguments, run_main, tell


REGRESSION_SIZE = 200  # somebody is waiting for it


@dataclass(kw_only=True)
class AppArguments(EditorArguments):
    """What the page works with, and who can open it."""

    model_name_or_path: str = field(metadata={"help": "Model to edit, editable or not: a folder, or a Hub name."})
    examples: list[str] | None = field(default=None, metadata={"help": "Sentences that the page offers to try."})
    num_beams: int = field(default=5, metadata={"help": "Beam size of the translations."})
    store: str | None = field(
        default=None,
        metadata={
            "help": "Folder of a store of edits, made if there is none: all who open the page work on it together. "
            "Default: each has edits of their own, which end with the session."
        },
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen at; 0.0.0.0 lets others in."})
    port: int = field(default=7860, metadata={"help": "Port to listen at."})
    allowed_hosts: list[str] | None = field(
        default=None,
        metadata={"help": "Further names under which browsers open it, such as a proxy's: example.org or box:8080."},
    )
    max_characters: int = field(default=1000, metadata={"help": "The longest sentence taken, in characters."})
    max_edits: int = field(default=20, metadata={"help": "The most edits that a session keeps."})
    max_sessions: int = field(default=20, metadata={"help": "The most sessions at a time; one more ends the oldest."})


def _serve(argv: list[str] | None) -> None:
    kinds = [AppArguments, GateArguments, LanguageArguments]
    arguments, limits, languages = parse_arguments(kinds, argv, __doc__, regression_size=REGRESSION_SIZE)
    if arguments.store is not None:
        from ...runs.files import check_folder

        check_folder(arguments.store)
    from ...app.page import Page  # if Gradio is missing, that is said before the model is loaded
    from ...app.server import PageServer
    from ...app.sessions import Sessions

    editor = load_text_editor(arguments.model_name_or_path, languages, arguments.num_beams, arguments)
    options = {name: getattr(arguments, name) for name in ("max_characters", "max_edits", "max_sessions")}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that sessions' files go then too
    with TemporaryDirectory(prefix="hf_editable-app-") as folder:
        sessions = Sessions(editor, folder, limits.gate(editor), store_dir=arguments.store, **options)
        page = Page(sessions, arguments.examples or [])
        server = PageServer(page, arguments.host, arguments.port, arguments.allowed_hosts or [])
        tell(f"The page is at {server.address} now; Ctrl+C ends it.", address=server.address)
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.wait()
        server.close()


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable app`; serves the page until it is interrupted, and returns the exit code."""
    return run_main(_serve, argv)
