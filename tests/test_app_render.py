"""The HTML that shows edits and what they change."""

from types import SimpleNamespace

import pytest

from hf_editable.app import render
from hf_editable.app.session import Proposal
from hf_editable.operations.gate.report import AskedCorrection, ChangedTranslation, ImpactReport


HOSTILE = "<img src=x onerror=alert(1)>\"'&"


def proposal(decoded=True, success=True, impact=None):
    result = SimpleNamespace(success=success, steps=3, decoded=decoded, translation=HOSTILE + " after")
    return Proposal(HOSTILE, HOSTILE + " wanted", HOSTILE + " before", result, 1234.4, impact)


def report(count=1, **values):
    changed = [ChangedTranslation(HOSTILE, HOSTILE + " one", HOSTILE + " two", HOSTILE + " ref")] * count
    asked = [
        AskedCorrection(HOSTILE, HOSTILE + " a", HOSTILE + " a", HOSTILE + " a"),
        AskedCorrection(HOSTILE, HOSTILE + " b", HOSTILE + " b", HOSTILE + " c"),
        AskedCorrection(HOSTILE, HOSTILE + " d", HOSTILE, HOSTILE),
    ]
    given = {"accepted": True, "reasons": [], "bleu": None, "chrf": None, **values}
    return ImpactReport(
        source=None,
        target=None,
        said=None,
        similarity=99.0,
        num_sentences=count + 1,
        changed=changed,
        asked=asked,
        **given,
    )


@pytest.mark.parametrize(
    ("before", "after", "marked"),
    [
        ("a red ball", "a blue ball", ("a <del>red</del> ball", "a <ins>blue</ins> ball")),
        ("a ball", "a big red ball", ("a ball", "a <ins>big red</ins> ball")),
        ("", "a ball", ("", "<ins>a ball</ins>")),
        ("a ball", "a ball", ("a ball", "a ball")),
        ("<b> & c", "<i> & c", ("<del>&lt;b&gt;</del> &amp; c", "<ins>&lt;i&gt;</ins> &amp; c")),
    ],
)
def test_words_that_differ_are_marked(before, after, marked):
    assert render.mark_differences(before, after) == marked


@pytest.mark.parametrize(
    ("decoded", "success", "parts"),
    [
        (True, True, ["he-yes", "1234 ms", ">3<"]),
        (False, True, ["he-no", "beam search still says something else", "Asked for:"]),
        (False, False, ["ran out of steps", "not met"]),
    ],
)
def test_the_outcome_tells_both_whether_the_constraint_holds_and_what_beam_search_says(decoded, success, parts):
    shown = render.outcome(proposal(decoded, success))
    assert all(part in shown for part in parts)
    assert ("he-no" in shown) == (not decoded or not success)


def test_the_impact_names_what_is_lost_and_ends_somewhere():
    shown = render.impact(proposal(impact=report(render.MAX_CHANGES + 2, accepted=False, reasons=["too much"])))
    assert "102 of 103" in shown and shown.count("he-change") == render.MAX_CHANGES + 1 and "2 more" in shown
    assert "too much" in shown and "Earlier corrections that hold: 1 of 3." in shown
    lost = shown.partition("Lost with this edit")[2]
    assert " b</li>" in lost.partition("Did not hold")[0] and " d</li>" in lost.partition("Did not hold")[2]


def test_there_is_a_word_for_everything_that_is_not_there():
    assert render.outcome(None) == render.impact(None) == render.status("") == ""
    assert "None yet" in render.kept([]) and "Not measured" in render.impact(proposal())
    assert "Translating" in render.impact(proposal(), measuring=True)
    assert "no other sentences" in render.impact(proposal(), measurable=False)
