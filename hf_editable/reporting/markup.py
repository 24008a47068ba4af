"""Markdown as the reports have it, and the same as one HTML page that needs nothing else."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher


_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~])")
_INLINE = re.compile(
    r"\\(?P<escaped>[\\`*_\[\]<>|&#~!()\-.])"
    r"|(?P<ticks>`+)(?P<code>.+?)(?P=ticks)(?!`)"
    r"|(?P<image>!)?\[(?P<text>(?:\\.|[^\]\\])*)\]\((?P<target>[^)\s]+)\)"
)
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+\s*$")
_CSS = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5c6570; --back: #ffffff; --raised: #f4f5f7;
  --line: #d5d9de; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e6ea; --soft: #a3abb5; --back: #14171a; --raised: #1f2428;
  --line: #394048; --link: #7fb8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem 1.25rem 4rem; color: var(--text); background: var(--back);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin: 2.2em 0 0.6em; }
h1 { margin-top: 0.6em; }
h2 { border-top: 1px solid var(--line); padding-top: 1.2em; }
h2#contents { border: 0; padding: 0; }
a { color: var(--link); }
nav { background: var(--raised); border-radius: 0.5rem; padding: 0.8rem 1.2rem; }
nav ul { margin: 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; margin: 1em 0; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
th.number, td.number { text-align: right; }
td.number { white-space: nowrap; }
td:not(.number) { min-width: 7rem; max-width: 26rem; }
code, pre { font: 0.88rem/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
pre { background: var(--raised); border-radius: 0.5rem; padding: 0.8rem 1rem; margin: 1em 0; white-space: pre-wrap; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 0.5rem; padding: 0.5rem; }
"""


def mark_words(before: str, after: str, mark: Callable[[str, int, bool], str]) -> tuple[str, str]:
    """
    Two texts with the words that differ marked.

    Args:
        before (`str`): the first text.
        after (`str`): the second one.
        mark (`Callable`):
            gives words as they are to stand: takes them, 0 or 1 for their text, and whether both texts have them.
    """
    words = (before.split(), after.split())
    texts: tuple[list[str], list[str]] = ([], [])
    for kind, *bounds in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, (start, end) in enumerate(zip(bounds[::2], bounds[1::2], strict=True)):
            if part := " ".join(words[side][start:end]):
                texts[side].append(mark(part, side, kind == "equal"))
    return " ".join(texts[0]), " ".join(texts[1])


def escape(text: str) -> str:
    """Plain text for a line or a table cell of Markdown: nothing in it is read as markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """
    A Markdown table.

    Args:
        header (`Sequence[str]`): titles of the columns.
        rows (`Sequence[Sequence[str]]`): their cells, as Markdown: see [`escape`].
        text_columns (`int`, *optional*, defaults to `1`): how many columns from the left hold text, not numbers.
    """
    rule = "".join("|:---" if column < text_columns else "|---:" for column in range(len(header))) + "|"
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def code_block(text: str, language: str = "") -> str:
    """A Markdown block of code, whatever the code is."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def anchor(heading: str, used: set[str]) -> str:
    """The name that GitHub links a heading by, not among those in use; it is added to them."""
    plain = re.sub(r"[^\w\- ]", "", _plain(heading).lower()).strip().replace(" ", "-") or "section"
    name, count = plain, 0
    while name in used:
        count += 1
        name = f"{plain}-{count}"
    used.add(name)
    return name


def _plain(text: str) -> str:
    return _INLINE.sub(lambda match: match["escaped"] or match["code"] or match["text"] or "", text)


def headings(markdown: str, level: int) -> list[tuple[str, str]]:
    """The headings of one level, as they stand in the Markdown, and their anchors."""
    used: set[str] = set()
    lines = [lines for kind, lines in _blocks(markdown) if kind == "heading"]
    found = [(len(marks), text, anchor(text, used)) for marks, text in lines]
    return [(text, name) for depth, text, name in found if depth == level]


def to_html(markdown: str, title: str, pictures: Mapping[str, str]) -> str:
    """
    One HTML page with all it needs inside it.

    Headings, paragraphs, lists, tables, blocks and spans of code, links and pictures are understood, and any other
    markup, HTML among it, is shown as the text that it is.

    Args:
        markdown (`str`): the text.
        title (`str`): of the page.
        pictures (`dict[str, str]`): `data:` URIs by the paths in the text. Other pictures are left out.
    """
    used: set[str] = set()
    body = []
    for kind, value in _blocks(markdown):
        body.append(_HTML[kind](value, pictures, used))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _blocks(markdown: str) -> Iterator[tuple[str, list[str]]]:
    """The blocks of a text: their kind and their lines; of a heading its marks and its text."""
    lines = markdown.splitlines()
    position = 0

    def take(belongs: Callable[[str], bool]) -> list[str]:
        nonlocal position
        start = position
        while position < len(lines) and belongs(lines[position]):
            position += 1
        return lines[start:position]

    def is_table(at: int) -> bool:
        return lines[at].startswith("|") and at + 1 < len(lines) and _RULE.match(lines[at + 1]) is not None

    def is_special(line: str) -> bool:
        return not line.strip() or re.match(r"#{1,6} |```|- |\|", line) is not None

    while position < len(lines):
        line = lines[position]
        if fence := re.match(r"`{3,}", line):
            position += 1
            yield "code", take(lambda each, end=fence[0]: each.rstrip() != end)
            position += 1
        elif heading := re.match(r"(#{1,6}) +(.*?)\s*$", line):
            position += 1
            yield "heading", [heading[1], heading[2]]
        elif is_table(position):
            yield "table", take(lambda each: each.startswith("|"))
        elif line.startswith("- "):
            items: list[str] = []
            for each in take(lambda each: each.startswith(("- ", "  ")) and bool(each.strip())):
                if each.startswith("- "):
                    items.append(each[2:])
                else:
                    items[-1] += f" {each.strip()}"
            yield "list", items
        elif line.strip():
            position += 1
            yield "paragraph", [line, *take(lambda each: not is_special(each))]
        else:
            position += 1


def _inline(text: str, pictures: Mapping[str, str]) -> str:
    parts, last = [], 0
    for match in _INLINE.finditer(text):
        parts.append(html.escape(text[last : match.start()], quote=False))
        last = match.end()
        if match["escaped"]:
            parts.append(html.escape(match["escaped"]))
        elif match["code"]:
            parts.append(f"<code>{html.escape(match['code'])}</code>")
        elif match["image"]:
            if match["target"] in pictures:
                alt = html.escape(_plain(match["text"]))
                parts.append(f'<img src="{html.escape(pictures[match["target"]])}" alt="{alt}">')
        elif re.match(r"https?://|#", match["target"]):
            parts.append(f'<a href="{html.escape(match["target"])}">{_inline(match["text"], {})}</a>')
        else:
            parts.append(_inline(match["text"], {}))
    return "".join([*parts, html.escape(text[last:], quote=False)])


def _html_heading(value: list[str], pictures: Mapping[str, str], used: set[str]) -> str:
    marks, text = value
    return f'<h{len(marks)} id="{html.escape(anchor(text, used))}">{_inline(text, pictures)}</h{len(marks)}>'


def _html_table(lines: list[str], pictures: Mapping[str, str], used: set[str]) -> str:
    header, rule, *rows = [re.split(r"(?<!\\)\|", line.strip()[1:].removesuffix("|")) for line in lines]
    classes = [' class="number"' if re.fullmatch(r"-+:", cell.strip()) else "" for cell in rule]

    def row(cells: list[str], tag: str) -> str:
        # Rows may be shorter or longer than the header.
        padded = [*cells, *[""] * len(header)][: len(header)]
        marks = [*classes, *[""] * len(header)]
        return "".join(
            f"<{tag}{mark}>{_inline(cell.strip(), pictures)}</{tag[:2]}>" for mark, cell in zip(marks, padded)
        )

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    head = row(header, "th").replace("<th", '<th scope="col"')
    # Wide tables scroll by themselves, by the keyboard too.
    return (
        '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _html_list(items: list[str], pictures: Mapping[str, str], used: set[str]) -> str:
    inner = "\n".join(f"<li>{_inline(item, pictures)}</li>" for item in items)
    contents = all(re.fullmatch(r"\[.*\]\(#.*\)", item) for item in items)
    listed = f"<ul>\n{inner}\n</ul>"
    return f'<nav aria-label="Contents">\n{listed}\n</nav>' if contents else listed


_HTML: dict[str, Callable[[list[str], Mapping[str, str], set[str]], str]] = {
    "heading": _html_heading,
    "table": _html_table,
    "list": _html_list,
    "code": lambda lines, pictures, used: f"<pre><code>{html.escape(chr(10).join(lines))}</code></pre>",
    "paragraph": lambda lines, pictures, used: f"<p>{_inline(' '.join(lines), pictures)}</p>",
}
