"""The logic of the page, without Gradio: sessions of one model."""

import dataclasses
import functools
import sys
import threading
import zipfile

import pytest
import torch
from test_app_render import HOSTILE, proposal, report

from hf_editable import EditableValueError, EditPatch, TranslationEditor
from hf_editable.app import render
from hf_editable.app.sessions import Sessions
from hf_editable.cli.commands.open_page import main
from hf_editable.operations.gate.impact import ImpactGate
from hf_editable.operations.store.edit_store import EditStore


EDITS = [
    ("der hund sieht den ball .", "the dog sees the ball ."),
    ("der mann malt den tisch .", "the man paints the table ."),
    ("der baum kauft den wagen .", "the tree buys the car ."),
]
SOURCES = [source for source, _ in EDITS]


@pytest.fixture
def editor(tiny_model, tiny_tokenizer):
    tiny_model.edit_config = tiny_model.edit_config.replace(num_alternatives=2, max_steps=3)
    editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)
    # A random model hardly ever says what it is asked to, however often it is tried.
    editor.edit = functools.partial(editor.edit, max_rounds=3)
    return editor


@pytest.fixture
def gate(editor, tiny_pairs):
    return ImpactGate(editor, tiny_pairs[:4], max_lost=None)


@pytest.fixture
def workbench(editor, gate, tmp_path):
    return Sessions(editor, tmp_path / "app", gate)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_weights(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def correct(session, source, target):
    """What the model says for the source of an edit that was made and kept."""
    result = session.propose(source, target).result
    session.keep()
    return result.translation


def test_a_kept_edit_is_there_from_then_on_and_the_shared_model_stays_as_it_was(workbench, editor):
    before = weights(editor.model)
    _, session = workbench.open()
    source, target = EDITS[0]
    first = session.translate(source)
    proposal = session.propose(source, target)
    said = proposal.result.translation
    assert proposal.before == first != said and proposal.milliseconds > 0
    assert session.measure() is proposal.impact and proposal.impact.num_sentences == 4
    assert session.keep().target == target
    assert session.proposal is None and session.translate(source) == said
    assert same_weights(editor.model, before)


def test_edits_are_made_and_measured_on_top_of_the_kept_ones(workbench, editor):
    _, session = workbench.open()
    said = correct(session, *EDITS[0])
    session.propose(*EDITS[1])
    asked = session.measure().asked
    assert [(each.source, each.target, each.before) for each in asked] == [(*EDITS[0], said)]
    session.keep()
    assert [(edit.source, edit.target) for edit in session.edits] == EDITS[:2]
    said = [session.translate(source) for source in SOURCES]
    with editor.model.edited(downloaded(session)):
        assert [editor.translate([source])[0] for source in SOURCES] == said


def downloaded(session):
    """The patch that a user gets."""
    place = session.download.parent / "unpacked"
    with zipfile.ZipFile(session.download) as archive:
        archive.extractall(place)
    return EditPatch.from_pretrained(place / "patch")


def test_an_edit_that_is_undone_leaves_nothing(workbench):
    _, session = workbench.open()
    source, target = EDITS[0]
    first = session.propose(source, target).before
    assert session.undo().target == target
    assert session.proposal is None and session.edits == [] and session.download is None
    assert session.translate(source) == first


def test_translating_forgets_an_edit_that_was_not_kept(workbench):
    _, session = workbench.open()
    first = session.propose(*EDITS[0]).before
    assert session.translate(SOURCES[0]) == first and session.proposal is None


def test_the_last_kept_edit_is_undone_first(workbench):
    _, session = workbench.open()
    correct(session, *EDITS[0])
    alone, download = [session.translate(source) for source in SOURCES], session.download
    correct(session, *EDITS[1])
    assert not download.exists()
    session.propose(*EDITS[2])
    assert session.undo_last().source == SOURCES[1]
    assert session.proposal is None and len(session.edits) == 1
    assert [session.translate(source) for source in SOURCES] == alone
    session.undo_last()
    assert session.edits == [] and session.download is None


def test_sessions_do_not_see_each_others_edits(workbench):
    (_, one), (_, other) = workbench.open(), workbench.open()
    base = other.translate(SOURCES[0])
    said = correct(one, *EDITS[0])
    assert other.translate(SOURCES[0]) == base != said and other.edits == []
    assert one.translate(SOURCES[0]) == said


def test_sessions_at_once_each_have_the_model_as_they_edited_it(workbench, editor):
    """Two edit and measure while two others, one with an edit of its own, keep asking for translations."""
    before = weights(editor.model)
    sessions = [workbench.open()[1] for _ in range(4)]
    correct(sessions[1], *EDITS[2])
    expected = [[session.translate(source) for source in SOURCES] for session in sessions[:2]]
    assert expected[0] != expected[1]
    heard, failed, stop = [[], []], [], threading.Event()

    def guarded(work):
        try:
            work()
        except Exception as error:
            failed.append(error)

    def listen(number):
        while not stop.is_set() or not heard[number]:
            heard[number].append([sessions[number].translate(source) for source in SOURCES])

    def edit(number):
        sessions[number].propose(*EDITS[0])
        sessions[number].measure()
        sessions[number].keep()

    listening = [threading.Thread(target=guarded, args=(lambda n=n: listen(n),)) for n in (0, 1)]
    editing = [threading.Thread(target=guarded, args=(lambda n=n: edit(n),)) for n in (2, 3)]
    for thread in listening + editing:
        thread.start()
    for thread in editing:
        thread.join()
    stop.set()
    for thread in listening:
        thread.join()
    assert not failed
    assert [{tuple(each) for each in said} for said in heard] == [{tuple(texts)} for texts in expected]
    one, other = ([session.translate(source) for source in SOURCES] for session in sessions[2:])
    assert one == other and one not in expected
    assert same_weights(editor.model, before)


def test_an_edit_that_fails_leaves_the_model_and_the_session_as_they_were(workbench, editor, monkeypatch):
    _, session = workbench.open()
    correct(session, *EDITS[0])
    before, said = weights(editor.model), session.translate(SOURCES[1])
    monkeypatch.setattr(workbench.gate, "measure", lambda *_: 1 / 0)
    session.propose(*EDITS[1])
    with pytest.raises(ZeroDivisionError):
        session.measure()
    session.undo()
    with pytest.raises(EditableValueError, match="unicorn"):
        session.propose(SOURCES[1], "the man paints the unicorn .")
    assert same_weights(editor.model, before) and session.translate(SOURCES[1]) == said


def test_what_the_gate_refuses_is_not_kept(editor, tmp_path):
    # One sentence, whose translation is the reference without the edit and not with it.
    source, target = EDITS[0]
    row = {"source": source, "target": editor.translate([source])[0]}
    workbench = Sessions(editor, tmp_path / "app", ImpactGate(editor, [row], max_drawdown=0.5))
    _, session = workbench.open()
    proposal = session.propose(source, target)
    assert not proposal.refused
    session.measure()
    assert proposal.refused and "cannot be kept" in render.impact(proposal)
    with pytest.raises(EditableValueError, match="refused"):
        session.keep()
    assert session.edits == [] and session.proposal is proposal


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda session: session.translate("  "), "The source is empty"),
        (lambda session: session.translate(None), "The source is empty"),
        (lambda session: session.propose(SOURCES[0], "\n"), "The translation is empty"),
        (lambda session: session.translate("x" * 1001), "1001 characters; 1000 are allowed"),
        (lambda session: session.propose(SOURCES[0], "x" * 1001), "The translation has 1001 characters"),
        (lambda session: session.keep(), "no edit to keep"),
        (lambda session: session.undo(), "no edit to undo"),
        (lambda session: session.measure(), "no edit to measure"),
        (lambda session: session.undo_last(), "none to undo"),
    ],
)
def test_what_cannot_be_done_is_said(workbench, call, message):
    with pytest.raises(EditableValueError, match=message):
        call(workbench.open()[1])


def test_lines_are_joined(workbench):
    _, session = workbench.open()
    assert session.translate("der hund\n  sieht den ball .") == session.translate(SOURCES[0])


def test_a_session_keeps_a_limited_number_of_edits(editor, tmp_path):
    _, session = Sessions(editor, tmp_path / "app", max_edits=1).open()
    correct(session, *EDITS[0])
    with pytest.raises(EditableValueError, match="1 edits are kept"):
        session.propose(*EDITS[1])


def test_a_session_that_ends_leaves_no_file(workbench):
    token, session = workbench.open()
    correct(session, *EDITS[0])
    assert session.download.is_file() and token in str(session.download)
    assert session.download.is_relative_to(workbench.downloads)
    workbench.close(token)
    assert not [path for path in workbench.folder.rglob("*") if path.is_file() or token in path.name]
    assert workbench.session(token) is None
    with pytest.raises(EditableValueError, match="has ended"):
        session.translate(SOURCES[0])
    workbench.close(token)
    workbench.close(None)


def test_a_session_that_ends_while_it_works_is_removed_when_it_is_done(workbench, monkeypatch):
    token, session = workbench.open()
    correct(session, *EDITS[0])
    session.propose(*EDITS[1])
    seen = []

    def measure(*_):
        ending = threading.Thread(target=workbench.close, args=(token,))  # as the server does: it must not wait
        ending.start()
        ending.join(10)
        seen.append((ending.is_alive(), session.download.exists()))

    monkeypatch.setattr(workbench.gate, "measure", measure)
    session.measure()
    assert seen == [(False, True)] and not session.download.exists()


def test_one_session_too_many_ends_the_one_that_was_not_used_for_longest(editor, tmp_path):
    workbench = Sessions(editor, tmp_path / "app", max_sessions=2)
    tokens = [workbench.open()[0] for _ in range(2)]
    workbench.session(tokens[0])
    tokens.append(workbench.open()[0])
    assert [workbench.session(token) is None for token in tokens] == [False, True, False]


def test_a_store_is_shared_and_outlasts_the_page(editor, make_tiny_model, tmp_path):
    workbench = Sessions(editor, tmp_path / "app", store_dir=tmp_path / "store")
    (token, one), (_, other) = workbench.open(), workbench.open()
    assert one is other and workbench.is_shared
    said = correct(one, *EDITS[0])
    workbench.close(token)
    assert other.translate(SOURCES[0]) == said

    fresh = TranslationEditor(make_tiny_model(), editor.tokenizer, num_beams=2)
    before = weights(fresh.model)
    again = Sessions(fresh, tmp_path / "again", store_dir=tmp_path / "store")
    session = again.session("any")
    assert [edit.source for edit in session.edits] == SOURCES[:1] and session.download.is_file()
    assert session.translate(SOURCES[0]) == said and same_weights(fresh.model, before)
    EditStore.open(tmp_path / "store").revert(session.edits[0].id)  # by another program
    session.refresh()
    assert session.edits == [] and session.translate(SOURCES[0]) != said


def test_the_store_of_another_model_is_refused(editor, make_tiny_model, tmp_path):
    other = make_tiny_model()
    with torch.no_grad():
        other.lm_head.weight.add_(1)
    EditStore.create(tmp_path / "store", other)
    with pytest.raises(EditableValueError, match="base"):
        Sessions(editor, tmp_path / "app", store_dir=tmp_path / "store")


@pytest.mark.parametrize("limit", ["max_characters", "max_edits", "max_sessions"])
def test_limits_are_checked(editor, tmp_path, limit):
    with pytest.raises(EditableValueError, match=f"{limit}=0"):
        Sessions(editor, tmp_path / "app", **{limit: 0})


def test_no_text_gets_into_the_page_as_markup(workbench, monkeypatch):
    refused = proposal(decoded=False, impact=report(accepted=False, reasons=[HOSTILE]))
    _, session = workbench.open()
    edit = dataclasses.replace(correct_and_list(session), corrections=(report().kept[0],))
    shown = [render.outcome(refused), render.impact(refused), render.kept([edit]), render.status(HOSTILE, "error")]
    assert all("&lt;img" in text and "<img" not in text for text in shown)


def correct_and_list(session):
    correct(session, *EDITS[0])
    return session.edits[0]


def test_scores_are_shown_with_their_interval(workbench):
    _, session = workbench.open()
    session.propose(*EDITS[0])
    report = session.measure()
    score = report.bleu
    for interval, words in ((None, ""), ((-0.5, 1.25), " [−0.50, +1.25]")):  # four sentences have none
        assert score.interval is None
        given = dataclasses.replace(report, bleu=dataclasses.replace(score, interval=interval))
        shown = render.impact(dataclasses.replace(session.proposal, impact=given))
        difference = f"{score.difference:+.2f}".replace("-", "−")
        assert f'{score.before:.2f} → {score.after:.2f} <span class="he-soft">{difference}{words}</span>' in shown


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "hf_editable.app.page", raising=False)
    assert main(["--model_name_or_path", "missing"]) == 2
    assert "pip install 'hf_editable[app]'" in capsys.readouterr().err
