"""The report of a folder of results: what is in it, and that nothing in it is read as markup."""

import base64
import html
import json
import re
from html.parser import HTMLParser

import pytest

from hf_editable import EditableFileError, EditableValueError, EditReport
from hf_editable.cli.commands.build_report import main
from hf_editable.measures.statistics import compare_reports
from hf_editable.reporting.markup import anchor, code_block, escape, headings, table, to_html
from hf_editable.reporting.results_page import build_report


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
)
NASTY = 'a <script>alert("x")</script> | `b` *c* _d_ [e](http://f) & g\\h #1 <!-- -->'


class Page(HTMLParser):
    """The tags, their attributes and the text of a page; open and closed tags must match."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag] = self.texts.get(tag, "") + data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def make_report(name, drawdowns, **summary):
    rows = [
        {
            "index": index,
            "source": f"quelle {index}",
            "target": NASTY if index == 0 else f"target {index}",
            "decoded": None if index == 1 else f"said {index}",
            "drawdown": value,
            "changed": 10 * index,
        }
        for index, value in enumerate(drawdowns)
    ]
    measures = {
        "name": name,
        "bleu": 40.0,
        "drawdown": sum(drawdowns) / len(drawdowns),
        "drawdown_interval": [0.1, 0.9],
        "success_rate": 1.0,
        "decode_success_rate": 0.5,
        "mean_steps": None,
        "milliseconds_median": 12.0,
        "changed_rate": 0.25,
        "kl": 0.02,
        "seed": 7,
        "machine": f"machine of {name}",
        "versions": {"torch": "9.8"},
        "command": "evaluate_edits.py --names 'a b'",
        **summary,
    }
    return EditReport(summary=measures, rows=rows)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.fixture
def results(tmp_path):
    """Two models on the same edits, a folder with a table and a picture, and what does not belong in a report."""
    root = tmp_path / "results"
    drawdowns = [1.2, 0.4, *(0.5 + 0.01 * index for index in range(12))]
    for name, values in (("baseline", drawdowns), ("able", [value / 2 for value in drawdowns])):
        report = make_report(name, values)
        write(root / "evaluation" / name / "report.json", report.to_dict())
        (root / "evaluation" / name / "drawdown.png").write_bytes(PNG)
    changes = [[3, "the same words here", "the same words now"], [8, "one", NASTY], [9, "a b c d", "a b c e"]]
    changes.append([11, "x y z x y z", "x y z x y q"])
    rows = [{"arguments": {}}, {"index": 0, "changes": changes}, {"index": 1, "changes": [[5, "unused", "words"]]}]
    lines = "\n".join(map(json.dumps, rows)) + '\n{"index": 2, "chan'
    write(root / "evaluation" / "baseline" / "rows.jsonl", lines)
    (root / "evaluation" / "drawdown.png").write_bytes(PNG)
    write(root / "evaluation" / "table.md", "| Model | BLEU | Drawdown [95 %] | Success | Decode success | Steps |")
    write(root / "other" / "table.md", "| a | b |\n|:---|---:|\n| x \\| y | 1 |\n\n- a note\n  in two lines\n")
    content = {"title": "Other & more", "command": "other.py --flag `x`", "versions": {"numpy": "2"}, "machine": "m"}
    write(root / "other" / "result.json", {**content, "pictures": {"curve.png": 'A "curve" [up]'}})
    (root / "other" / "curve.png").write_bytes(PNG)
    write(root / "other" / "list.json", [1, 2])
    write(root / "data" / "info.json", {"command": "prepare_data.py"})
    write(
        root / "README.md", "# Numbers\n\nMade <b>here</b>.\n\n## other\n\nThe `other` one.\n\n## gone\n\nNot shown.\n"
    )
    return root


def built(results, tmp_path, **options):
    build_report(results, tmp_path / "page", **options)
    markdown = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    return markdown, (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


def test_sections(results, tmp_path):
    markdown, text = built(results, tmp_path)
    page = Page(text)
    assert [title for title, _ in headings(markdown, 2)] == ["Contents", "evaluation", "Other \\& more"]
    assert markdown.startswith("# Numbers\n\nMade <b>here</b>.\n\n## Contents\n\n- [evaluation](#evaluation)\n")
    assert page.texts["title"] == page.texts["h1"] == "Numbers" and not page.named("b")
    assert "The `other` one." in markdown and "gone" not in markdown and "prepare_data" not in markdown
    # Every link of the contents leads somewhere.
    ids = [attributes["id"] for name, attributes in page.tags if re.fullmatch("h[1-6]", name)]
    assert [link["href"] for link in page.named("a")] == ["#evaluation", "#other--more"]
    assert len(set(ids)) == len(ids) and {"evaluation", "other--more"} < set(ids)
    assert "x | y" in page.texts["td"] and "a note in two lines" in page.texts["li"]


def test_how_it_was_made(results, tmp_path):
    markdown, text = built(results, tmp_path)
    page = Page(text)
    # Once for both models, which one command made; backticks do not end its block.
    assert markdown.count("```bash\nevaluate_edits.py --names 'a b'\n```") == 1
    assert page.texts["pre"] == "evaluate_edits.py --names 'a b'other.py --flag `x`"
    assert "| seed | 7 |" in markdown and "| seed | not recorded |" in markdown
    assert "| machine | machine of baseline; machine of able |" in markdown
    assert "| versions | torch 9.8 |" in markdown and "| versions | numpy 2 |" in markdown


def test_comparison_and_table(results, tmp_path, monkeypatch):
    markdown, _ = built(results, tmp_path, seed=3)
    assert (
        "| baseline → able | 14 | 0.29 | 100% | 0% | 0.50 |" in markdown and "none of fewer than 20 edits" in markdown
    )
    monkeypatch.setattr("hf_editable.measures.statistics.LEAST_RESAMPLED", 14)
    markdown, _ = built(results, tmp_path, seed=3)
    reports = [EditReport.load(results / "evaluation" / name) for name in ("baseline", "able")]
    compared = compare_reports(*reports, seed=3)
    low, high = compared.difference_interval
    ratio_low, ratio_high = compared.ratio_interval
    expected = f"| baseline → able | 14 | {compared.difference:.2f} [{low:.2f}, {high:.2f}] | 100% | 0% | "
    assert expected + f"0.50 [{ratio_low:.2f}, {ratio_high:.2f}] |" in markdown
    assert markdown.count("| Model | BLEU | Drawdown [95 %] |") == 1
    assert markdown.index("| baseline | 40.00 | 0.59 [0.10, 0.90] |") < markdown.index("| able | 40.00 |")
    other, _ = built(results, tmp_path, baseline="able")
    assert "| able → baseline | 14 | -" in other and "| 0% | 100% | 2.00 [" in other


def test_other_edits_are_not_compared(results, tmp_path):
    write(results / "evaluation" / "able" / "report.json", make_report("able", [0.5, 0.5]).to_dict())
    markdown, _ = built(results, tmp_path)
    assert "'baseline' was measured on 14 edits and 'able' on 2" in markdown and "baseline → able" not in markdown


def test_worst_edits_and_what_they_changed(results, tmp_path):
    markdown, text = built(results, tmp_path)
    part = markdown.split("### The edits of baseline that cost most")[1].split("###")[0]
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| quelle ")]
    assert [row[0] for row in rows] == ["| quelle 0", *(f"| quelle {index}" for index in range(13, 4, -1))]
    assert (rows[0][-2], rows[0][-1]) == ("1.20", "0 |") and rows[1][2] == "said 13"
    # The three that changed most, and those of the worst edits alone.
    changed = [line for line in part.splitlines() if line.startswith(f"| {escape(NASTY)} | ")]
    assert [line.split(" | ")[1] for line in changed] == ["8", "3", "9"]
    assert "unused" not in markdown and "changed most" not in markdown.split("of able that cost most")[1]
    assert NASTY in Page(text).texts["td"]


def test_published_names(tmp_path):
    root = tmp_path / "published"
    write(root / "baseline.json", make_report("baseline", [1.0, 2.0]).to_dict())
    write(root / "editable.json", make_report("editable", [0.5, 1.0]).to_dict())
    write(root / "editable.jsonl", '{"arguments": {}}\n{"index": 1, "changes": [[4, "alt", "neu"]]}\n')
    markdown, _ = built(root, tmp_path)
    assert markdown.startswith("# published\n") and "| target 1 | 4 | alt | neu |" in markdown
    assert "| baseline → editable | 2 |" in markdown


def test_other_reports_with_a_summary(tmp_path):
    summary = {"name": "m", "command": "x.py", "seed": 4, "versions": {"torch": "1"}, "machine": "here"}
    write(tmp_path / "in" / "deep" / "report.json", {"summary": summary, "rows": []})
    write(tmp_path / "in" / "deep" / "report.md", "# A title of its own\n\n| a |\n|:---|\n| cell |\n")
    markdown, _ = built(tmp_path / "in", tmp_path)
    assert "## A title of its own\n\n| a |" in markdown and "| seed | 4 |" in markdown and markdown.count("x.py") == 1


def test_the_page_needs_nothing_else(results, tmp_path):
    markdown, text = built(results, tmp_path)
    page = Page(text)
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert [image["src"] for image in page.named("img")] == [uri, uri]
    assert page.named("img")[1]["alt"] == 'A "curve" [up]'
    assert page.named("img")[0]["alt"].startswith(
        "How the BLEU drawdown is distributed over edits. baseline: mean 0.59"
    )
    assert not page.named("script") and not page.named("link") and "url(" not in text and "@import" not in text
    assert [meta.get("name") for meta in page.named("meta")] == [None, "viewport"]
    assert "prefers-color-scheme: dark" in text
    paths = re.findall(r"!\[.*\]\((.*)\)", markdown)
    assert paths == ["pictures/01-drawdown.png", "pictures/02-curve.png"]
    assert all((tmp_path / "page" / path).read_bytes() == PNG for path in paths)


def test_pages_are_no_results(results, tmp_path):
    first = built(results, tmp_path)
    build_report(results, results / "page")
    assert (results / "page" / "report.md").read_text() == first[0]
    build_report(results, results / "page")
    assert (results / "page" / "report.md").read_text() == first[0] and built(results, tmp_path) == first


def test_whole_or_not_at_all(results, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no page")

    monkeypatch.setattr("hf_editable.reporting.results_page.to_html", fail)
    with pytest.raises(RuntimeError, match="no page"):
        build_report(results, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_markup():
    text = f"{table(('a', 'b'), [(escape(NASTY), '1')])}\n\n{escape(NASTY)}\n\n{code_block(NASTY + chr(10) + '```')}"
    page = Page(to_html(text, NASTY, {}))
    assert page.texts["p"] == page.texts["title"] == NASTY and page.texts["code"] == f"{NASTY}\n```"
    assert page.texts["td"] == NASTY + "1" and [cell.get("class") for cell in page.named("td")] == [None, "number"]
    assert not page.named("script") and not page.named("a")
    assert Page(to_html("<b>raw</b> & `code`", "t", {})).texts["p"] == "<b>raw</b> & code"
    linked = Page(to_html('[a](https://b.c) [d](javascript:e) ![f](g.png) "h" <i>', "t", {}))
    assert [link["href"] for link in linked.named("a")] == ["https://b.c"] and not linked.named("img")
    assert linked.texts["p"] == 'a d  "h" <i>'
    used = set()
    assert [anchor("The `A` & b!", used), anchor("The A & b", used)] == ["the-a--b", "the-a--b-1"]


def test_a_row_may_be_short_or_long():
    page = Page(to_html("| a | b |\n|---|---|\n| 1 |\n| 1 | 2 | 3 |", "t", {}))
    assert len(page.named("td")) == 4 and page.texts["td"] == "112"


def test_unusable_folders_raise(results, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for root, output, error, message in (
        (tmp_path / "missing", tmp_path / "out", EditableFileError, "is no folder"),
        (tmp_path / "empty", tmp_path / "out", EditableValueError, "has no reports of evaluations"),
        (results, results, EditableValueError, "holds the results"),
        (results, tmp_path / "file", EditableFileError, "is a file"),
    ):
        with pytest.raises(error, match=message):
            build_report(root, output)
    write(results / "evaluation" / "baseline" / "rows.jsonl", "{}\n{torn\n{}\n")
    with pytest.raises(EditableFileError, match=r"rows\.jsonl' is damaged"):
        build_report(results, tmp_path / "out")
    write(results / "evaluation" / "baseline" / "rows.jsonl", "{}\n")
    write(results / "other" / "list.json", "{torn")
    with pytest.raises(EditableFileError, match=r"list\.json' is damaged"):
        build_report(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(results, tmp_path, capsys):
    argv = ["--results_dir", str(results), "--output_dir", str(tmp_path / "out"), "--title", "Mine <1>"]
    assert main(argv) == 0
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
    assert f"<title>{html.escape('Mine <1>')}</title>" in (tmp_path / "out" / "report.html").read_text()
    assert main(["--results_dir", str(tmp_path / "no"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "is no folder" in capsys.readouterr().err
