"""The page itself: what is on it, and what happens when a button is pressed."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import EditableError, EditableImportError
from . import render
from .session import Proposal, Session
from .sessions import Sessions


try:
    import gradio as gr
except ImportError as error:
    raise EditableImportError("The page needs Gradio: pip install 'hf_editable[app]'.") from error


MAX_WAITING = 20
Values = dict[Any, Any]


class Page:
    """
    A page to try edits of a [`Sessions`]'s model on.

    Args:
        sessions ([`Sessions`]): the model and the sessions.
        examples (`Sequence[str]`, *optional*): sentences to start from.

    Attributes:
        blocks (`gradio.Blocks`): the page, for a [`PageServer`].
    """

    def __init__(self, sessions: Sessions, examples: Sequence[str] = ()):
        self._sessions = sessions
        # Gradio keeps and serves files in these; they are read when the page is made.
        os.environ["GRADIO_TEMP_DIR"] = str(sessions.downloads)
        os.environ["GRADIO_EXAMPLES_CACHE"] = str(sessions.downloads)
        with gr.Blocks(title="hf_editable", analytics_enabled=False) as self.blocks:
            self._token = gr.State(None, delete_callback=sessions.close)
            self._add_texts(examples)
            self._add_results()
            self._add_kept()
            self._connect()
        # One user at a time has the model, and those who wait are counted.
        self.blocks.queue(max_size=MAX_WAITING, api_open=False)

    def _add_texts(self, examples: Sequence[str]) -> None:
        gr.Markdown(
            f"# Correct a translation\n`{self._sessions.base_model}` translates. Where it is wrong, correct it; the "
            "model is edited to say so, and you see what else changes."
        )
        limit = self._sessions.max_characters
        self._source = gr.Textbox(
            label="Source", lines=3, max_length=limit, elem_id="he-source", placeholder="A sentence", render=False
        )
        if examples:
            gr.Examples(
                [[text] for text in examples],
                [self._source],
                label="Sentences to try",
                cache_examples=False,
                api_visibility="private",
            )
        with gr.Row(equal_height=True):
            with gr.Column(min_width=280):
                self._source.render()
                self._translate = gr.Button("Translate", elem_id="he-translate")
            with gr.Column(min_width=280):
                self._target = gr.Textbox(
                    label="Translation, to be corrected", lines=3, max_length=limit, elem_id="he-target"
                )
                self._edit = gr.Button("Edit the model", variant="primary", elem_id="he-edit")
        self._status = gr.HTML(elem_id="he-status", elem_classes="he-flush")

    def _add_results(self) -> None:
        with gr.Column(visible=False, elem_id="he-result") as self._result:
            gr.Markdown("## The edit")
            self._outcome = gr.HTML(elem_id="he-outcome", elem_classes="he-flush")
            with gr.Row():
                self._keep = gr.Button("Keep", variant="primary", elem_id="he-keep")
                self._undo = gr.Button("Undo", elem_id="he-undo")
            gr.Markdown("## What else changes")
            self._impact = gr.HTML(elem_id="he-impact", elem_classes="he-flush")

    def _add_kept(self) -> None:
        gr.Markdown("## Kept edits")
        self._kept = gr.HTML(render.kept([]), elem_id="he-kept", elem_classes="he-flush")
        with gr.Row():
            self._undo_last = gr.Button("Undo the last", interactive=False, elem_id="he-undo-last")
            self._download = gr.DownloadButton("Download as a patch", interactive=False, elem_id="he-download")

    def _connect(self) -> None:
        shown = [
            self._token,
            self._target,
            self._status,
            self._result,
            self._outcome,
            self._impact,
            self._keep,
            self._undo,
            self._kept,
            self._undo_last,
            self._download,
        ]
        texts = [self._source, self._target]
        options = {
            "outputs": shown,
            "api_visibility": "private",
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "show_progress": "minimal",
        }
        gr.on([self._translate.click, self._source.submit], self._on(self.translate), [self._token, *texts], **options)
        gr.on([self._edit.click, self._target.submit], self._on(self.edit), [self._token, *texts], **options)
        for button, action in (
            (self._keep, self.keep),
            (self._undo, self.undo),
            (self._undo_last, self.undo_last),
        ):
            button.click(self._on(action), [self._token, *texts], **options)
        if self._sessions.is_shared:
            self.blocks.load(self._on(self.load), [self._token, *texts], **options)

    def _on(self, action: Callable[[Session, str, str], Iterator[Values]]) -> Callable[..., Iterator[Values]]:
        """An action as Gradio calls it: with the user's session, and its errors as a line on the page."""

        def handle(token: str | None, source: str, target: str) -> Iterator[Values]:
            session = None if token is None else self._sessions.session(token)
            expired = token is not None and session is None
            if session is None:
                token, session = self._sessions.open()
            try:
                if expired:
                    yield self._show(session, "Your session had ended, and its edits with it. This is a new one.")
                for values in action(session, source, target):
                    yield {self._token: token, **values}
            except EditableError as error:
                yield {self._token: token, **self._show(session, str(error), "error")}

        return handle

    def load(self, session: Session, source: str, target: str) -> Iterator[Values]:
        """Show the edits of a store that is there before the user is."""
        session.refresh()
        yield self._show(session)

    def translate(self, session: Session, source: str, target: str) -> Iterator[Values]:
        """Translate the source with the kept edits."""
        translation = session.translate(source)
        yield {**self._show(session), self._target: translation}

    def edit(self, session: Session, source: str, target: str) -> Iterator[Values]:
        """Make an edit and show it; then measure what else it changes, and show that."""
        proposal = session.propose(source, target)
        if self._sessions.gate is None:
            yield self._show(session, *_verdict(proposal))
            return
        yield self._show(session, "The edit is made. Measuring what else it changes …", measuring=True)
        session.measure()
        yield self._show(session, *_verdict(proposal))

    def keep(self, session: Session, source: str, target: str) -> Iterator[Values]:
        """Keep the edit that is shown."""
        kept = session.keep()
        yield self._show(session, f"Kept: {kept.source} → {kept.target}", "good")

    def undo(self, session: Session, source: str, target: str) -> Iterator[Values]:
        """Forget the edit that is shown."""
        forgotten = session.undo()
        yield {**self._show(session, "Undone. The model is as it was before."), self._target: forgotten.before}

    def undo_last(self, session: Session, source: str, target: str) -> Iterator[Values]:
        """Take back the last kept edit."""
        reverted = session.undo_last()
        yield self._show(session, f"Taken back: {reverted.source} → {reverted.target}")

    def _show(self, session: Session, text: str = "", kind: str = "note", measuring: bool = False) -> Values:
        """Everything on the page that follows from a session."""
        proposal, edits, download = session.proposal, session.edits, session.download
        ready = proposal is not None and not measuring
        return {
            self._status: render.status(text, kind),
            self._result: gr.update(visible=proposal is not None),
            self._outcome: render.outcome(proposal),
            self._impact: render.impact(proposal, measuring, self._sessions.gate is not None),
            self._keep: gr.update(interactive=ready and not proposal.refused),
            self._undo: gr.update(interactive=ready),
            self._kept: render.kept(edits),
            self._undo_last: gr.update(interactive=bool(edits)),
            self._download: gr.update(value=download and str(download), interactive=download is not None),
        }


def _verdict(proposal: Proposal) -> tuple[str, str]:
    """What to tell of an edit, and in which tone."""
    text = f"The edited model {'translates' if proposal.result.decoded else 'does not translate'} it as asked."
    if proposal.refused:
        return f"{text} It changes more than is allowed, so it can only be undone.", "error"
    return f"{text} Keep the edit, or undo it.", "good" if proposal.result.decoded else "note"
