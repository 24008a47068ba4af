"""What the page shows of an edit, as HTML: every text of a user or a model is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..reporting.markup import mark_words


if TYPE_CHECKING:
    from ..operations.corrections.correction_list import Correction
    from ..operations.gate.report import ChangedTranslation, ImpactReport, ScoreChange
    from ..operations.store.manifest import StoredEdit
    from .session import Proposal


MAX_CHANGES = 100


def mark_differences(before: str, after: str) -> tuple[str, str]:
    """
    Two texts as HTML, with the words that only the first has in `<del>`, and those that only the second has in
    `<ins>`.

    Example:

    ```python
    >>> mark_differences("a red ball", "a blue ball")
    ('a <del>red</del> ball', 'a <ins>blue</ins> ball')
    ```
    """

    def mark(part: str, side: int, shared: bool) -> str:
        tag = ("del", "ins")[side]
        return html.escape(part) if shared else f"<{tag}>{html.escape(part)}</{tag}>"

    return mark_words(before, after, mark)


def status(text: str, kind: str = "note") -> str:
    """
    One line about what was done.

    Args:
        text (`str`): the line; empty shows nothing.
        kind (`str`, *optional*, defaults to `"note"`): `"note"`, `"good"` or `"error"`.
    """
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="he-status he-{kind}" role="{role}">{html.escape(text)}</p>'


def outcome(proposal: "Proposal | None") -> str:
    """Whether an edit does what was asked, what it took, and the translation before and after it."""
    if proposal is None:
        return ""
    result = proposal.result
    facts = [
        _fact("Decoded as asked", "yes" if result.decoded else "no", result.decoded),
        _fact("Constraint", "met" if result.success else "not met", result.success),
        _fact("Steps", str(result.steps)),
        _fact("Time", _duration(proposal.milliseconds)),
    ]
    note = ""
    if not result.decoded and result.success:
        note = "The target outranks the other translations, but beam search still says something else."
    elif not result.decoded:
        note = "The edit ran out of steps before the target outranked the other translations."
    before, after = mark_differences(proposal.before, result.translation)
    pair = _pair(before, after)
    wanted = ""
    if not result.decoded:
        wanted = f'<p class="he-soft">Asked for: {html.escape(proposal.target)}</p>'
    warning = f'<p class="he-warn">{note}</p>' if note else ""
    source = f'<p class="he-source">{html.escape(proposal.source)}</p>'
    return f'<dl class="he-facts">{"".join(facts)}</dl>{warning}{source}{pair}{wanted}'


def impact(proposal: "Proposal | None", measuring: bool = False, measurable: bool = True) -> str:
    """
    What else an edit changes.

    Args:
        proposal ([`Proposal`], *optional*): the edit.
        measuring (`bool`, *optional*, defaults to `False`): whether that is being found out.
        measurable (`bool`, *optional*, defaults to `True`): whether there is anything to measure it on.
    """
    if proposal is None:
        return ""
    if not measurable:
        return '<p class="he-soft">There are no other sentences to measure this on.</p>'
    if measuring:
        return '<p class="he-soft">Translating the other sentences with and without the edit …</p>'
    if proposal.impact is None:
        return '<p class="he-soft">Not measured.</p>'
    return _report(proposal.impact)


def kept(edits: "Sequence[StoredEdit]") -> str:
    """The kept edits, the last one first."""
    if not edits:
        return '<p class="he-soft">None yet.</p>'
    items = []
    for number, edit in reversed(list(enumerate(edits, 1))):
        for correction in edit.corrections:
            said = "" if edit.decoded in (None, True) else ' <span class="he-soft">(not decoded as asked)</span>'
            items.append(
                f'<li value="{number}"><span class="he-source">{html.escape(correction.source)}</span>'
                f"<span>{html.escape(correction.target)}</span>{said}</li>"
            )
    return f'<ol class="he-kept" reversed>{"".join(items)}</ol>'


def _fact(name: str, value: str, good: bool | None = None) -> str:
    mark = "" if good is None else f' class="{"he-yes" if good else "he-no"}"'
    return f"<div><dt>{name}</dt><dd{mark}>{value}</dd></div>"


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"


def _pair(before: str, after: str) -> str:
    """Two marked texts side by side; below each other where there is no room."""
    return (
        f'<div class="he-pair"><div><span class="he-label">before</span>{before or "–"}</div>'
        f'<div><span class="he-label">after</span>{after or "–"}</div></div>'
    )


def _report(report: "ImpactReport") -> str:
    count = len(report.changed)
    facts = [_fact("Translations changed", f"{count} of {report.num_sentences}")]
    facts += [_fact(name, _score(score)) for name, score in (("BLEU", report.bleu), ("chrF", report.chrf)) if score]
    parts = [f'<dl class="he-facts">{"".join(facts)}</dl>']
    if not report.accepted:
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in report.reasons)
        parts.append(f'<div class="he-warn">This edit cannot be kept:<ul>{reasons}</ul></div>')
    if report.asked:
        parts.append(f"<p>Earlier corrections that hold: {len(report.kept)} of {len(report.asked)}.</p>")
        parts += _corrections("Lost with this edit:", report.lost)
        parts += _corrections("Did not hold before it either:", report.not_held)
    changes = [_change(change) for change in report.changed[:MAX_CHANGES]]
    if count > MAX_CHANGES:
        changes.append(f'<p class="he-soft">… and {count - MAX_CHANGES} more.</p>')
    if changes:
        parts.append(f'<div class="he-changes" tabindex="0">{"".join(changes)}</div>')
    return "".join(parts)


def _score(score: "ScoreChange") -> str:
    difference = _signed(score.difference)
    if score.interval is not None:
        difference += f" [{', '.join(map(_signed, score.interval))}]"
    return f'{score.before:.2f} → {score.after:.2f} <span class="he-soft">{difference}</span>'


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _corrections(title: str, corrections: "Iterable[Correction]") -> list[str]:
    items = "".join(f"<li>{html.escape(each.source)} → {html.escape(each.target)}</li>" for each in corrections)
    return [f'<div class="he-warn">{title}<ul>{items}</ul></div>'] if items else []


def _change(change: "ChangedTranslation") -> str:
    reference = (
        "" if change.reference is None else f'<p class="he-soft">Reference: {html.escape(change.reference)}</p>'
    )
    pair = _pair(*mark_differences(change.before, change.after))
    return f'<div class="he-change"><p class="he-source">{html.escape(change.source)}</p>{pair}{reference}</div>'
