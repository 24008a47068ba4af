"""Files of corrections: what is read from them, and what is refused."""

import json

import pytest

from hf_editable import EditableFileError, EditableValueError
from hf_editable.operations.corrections.correction_list import Correction, find_conflicts
from hf_editable.operations.corrections.readers import read_corrections


HEADER = '<header creationtool="t" segtype="sentence" adminlang="en" datatype="plaintext" srclang="{srclang}"/>'


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def tmx(*units, srclang="de", before="", version="1.4"):
    body = "\n".join(units)
    header = HEADER.format(srclang=srclang)
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n{before}<tmx version="{version}">\n'
    return f"{start}{header}\n<body>\n{body}\n</body></tmx>"


def unit(*variants, attributes="", inside=""):
    tuvs = "".join(f'<tuv xml:lang="{language}"><seg>{text}</seg></tuv>' for language, text in variants)
    return f"<tu {attributes}>{inside}{tuvs}</tu>"


def pairs(corrections):
    return [(each.source, each.target) for each in corrections]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_has_quotes_line_ends_and_columns_in_any_order(tmp_path, mark):
    rows = ['"a, ""b""","the dog, a ""good"" one", der hund ,7', "", ',"two\r\nlines",zwei,', ",,,"]
    text = "\r\n".join(["note,target,source,id", *rows, ""])
    read = read_corrections(write(tmp_path, "a.csv", mark + text.encode()))
    assert read == [
        Correction("der hund", 'the dog, a "good" one', id="7", note='a, "b"'),
        Correction("zwei", "two\r\nlines"),
    ]
    assert [each.place for each in read] == ["line 2", "line 4"]


def test_rows_that_lack_one_side_are_kept_for_the_report(tmp_path):
    read = read_corrections(write(tmp_path, "a.csv", "source,target\nder hund,\n,the dog\n"))
    assert pairs(read) == [("der hund", ""), ("", "the dog")]


def test_columns_have_other_names_by_option(tmp_path):
    content = "id,de,en\n1,der hund,the dog\n"
    read = read_corrections(write(tmp_path, "a.csv", content), source_column="de", target_column="en")
    assert read == [Correction("der hund", "the dog", id="1")]
    as_source = read_corrections(write(tmp_path, "b.csv", content), source_column="id", target_column="en")
    assert as_source == [Correction("1", "the dog")]


def test_tsv_has_no_quotes(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("hf_editable.operations.corrections.readers.logger.warning", warnings.append)
    content = 'source\ttarget\r\nder "hund\the said "dog"\r\nsagt\t"says"\r\n\r\neins\x85zwei\tone\r\n'
    read = read_corrections(write(tmp_path, "a.tsv", content))
    assert pairs(read) == [('der "hund', 'he said "dog"'), ("sagt", '"says"'), ("eins\x85zwei", "one")]
    assert [each.place for each in read] == ["line 2", "line 3", "line 5"]
    assert len(warnings) == 1 and "1 rows have texts in quotes" in warnings[0]


def test_jsonl_keeps_what_is_known(tmp_path):
    lines = [{"source": " a\nb ", "target": "c", "id": 3, "other": [1]}, {"source": "d", "target": "e", "note": None}]
    content = "\n\n".join(json.dumps(line) for line in lines)
    read = read_corrections(write(tmp_path, "a.jsonl", content))
    assert read == [Correction("a\nb", "c", id="3"), Correction("d", "e")]
    assert [each.place for each in read] == ["line 1", "line 3"]


def test_format_goes_before_the_name(tmp_path):
    read = read_corrections(write(tmp_path, "a.txt", "source\ttarget\na\tb\n"), format="tsv")
    assert pairs(read) == [("a", "b")]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.xlsx", "x", r"ends in 'xlsx', which is no format of corrections"),
        ("a.csv", "", r"line 1: no column 'source' and no 'target'|has no corrections"),
        ("a.csv", "source,target\n", r"a\.csv' has no corrections"),
        ("a.csv", "quelle,target\na,b\n", r"line 1: no column 'source' among \['quelle', 'target'\]"),
        ("a.csv", "source,target,source\na,b,c\n", r"line 1: there are 2 columns 'source'\. Keep one"),
        ("a.csv", "source,target\na,b\nc,d,e\n", r"line 3: 3 cells under 2 columns: \['c', 'd', 'e'\]\. Put cells"),
        ("a.csv", 'source,target\na,b\nc,"d"e\n', r"line 3: .*expected after.*double the quotes"),
        ("a.csv", 'source,target\na,b\nc,"d\n', r"line 3: unexpected end of data"),
        ("a.csv", b"source,target\na,b\nc,\xe4\n", r"line 3: the byte 0xe4 is not UTF-8\. Save the file as UTF-8"),
        ("a.csv", b"s\0o\0", r"line 1: it has a null character"),
        ("a.tsv", "source\ttarget\na\tb\tc\n", r"line 2: 3 cells under 2 columns.*Take the tabs out"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a"\n', r"line 2: Expecting.*one JSON object a line"),
        ("a.jsonl", '["a"]', r"line 1: '\[\"a\"\]' is no object"),
        ("a.jsonl", '{"source": "a"}', r"line 1: no column 'target' among \['source'\]"),
        ("a.jsonl", '{"source": "a", "target": null}', r"line 1: 'target' is None\. Give a text"),
        ("a.jsonl", '{"source": "a", "target": "b", "note": []}', r"line 1: 'note' is \[\]\. Give a text"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path, name, content, message):
    with pytest.raises((EditableValueError, EditableFileError), match=message) as raised:
        read_corrections(write(tmp_path, name, content))
    assert name in str(raised.value)


def test_options_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path, "a.csv", "source,target\na,b\n")
    with pytest.raises(EditableFileError, match=r"No such file: .*b\.csv"):
        read_corrections(tmp_path / "b.csv")
    with pytest.raises(EditableValueError, match=r"format='xls', which is no format of corrections"):
        read_corrections(path, format="xls")
    with pytest.raises(EditableValueError, match=r"source_lang='de' .*a\.csv' is csv"):
        read_corrections(path, source_lang="de")
    with pytest.raises(EditableValueError, match="source_column and target_column are both 'source'"):
        read_corrections(path, target_column="source")


def test_tmx_keeps_the_text_and_drops_the_codes(tmp_path):
    source = (
        'ein <bpt i="1">&lt;b title="<sub>fett</sub>"></bpt>gro&#223;er<ept i="1">&lt;/b></ept> '
        '<hi type="term">hund <ph>x<sub>note</sub></ph>hier</hi><it pos="begin">&lt;i></it> &amp; <ut>{u}</ut>mann '
    )
    content = tmx(
        unit(
            ("de", source),
            ("en", "<![CDATA[a <dog>]]>"),
            attributes='tuid="t1"',
            inside="<prop>p</prop><note>n</note>",
        ),
        before='<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n',
    )
    read = read_corrections(write(tmp_path, "a.tmx", content))
    assert read == [Correction("ein großer hund hier & mann", "a <dog>", id="t1", note="n")]
    assert read[0].place == "line 6 (unit 1)"


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_tmx_is_read_in_the_encoding_that_it_names(tmp_path, encoding):
    content = tmx(unit(("de", "großer"), ("en", "big"))).replace("UTF-8", encoding)
    read = read_corrections(write(tmp_path, "a.tmx", content.encode(encoding)))
    assert pairs(read) == [("großer", "big")]


def test_languages_of_tmx_match_by_their_beginning_and_exactly_first(tmp_path):
    both = unit(("de-AT", "erdapfel"), ("DE", "kartoffel"), ("en_GB", "potato"), ("end", "x"))
    path = write(tmp_path, "a.tmx", tmx(both, unit(("de-CH", "velo"), ("EN-us", "bike"), ("fr", "vélo"))))
    options = {"source_lang": "de", "target_lang": "en"}
    assert pairs(read_corrections(path, **options)) == [("kartoffel", "potato"), ("velo", "bike")]
    assert pairs(read_corrections(path, source_lang="de-at", target_lang="en-GB")) == [("erdapfel", "potato")]


def test_units_of_tmx_have_their_own_source_language(tmp_path):
    units = [unit(("en", "dog"), ("de", "hund"), attributes='srclang="en"'), unit(("en", "cat"), ("de", "katze"))]
    path = write(tmp_path, "a.tmx", tmx(*units))
    assert pairs(read_corrections(path)) == [("dog", "hund"), ("katze", "cat")]
    with pytest.raises(EditableValueError, match=r"line 5 \(unit 1\): it was translated from 'en' .*not from 'de'"):
        read_corrections(path, source_lang="de", target_lang="en")
    free = write(tmp_path, "b.tmx", tmx(unit(("en", "cat"), ("de", "katze")), srclang="*all*"))
    assert pairs(read_corrections(free, source_lang="de")) == [("katze", "cat")]
    with pytest.raises(EditableValueError, match=r"unit 1\): its srclang is '\*all\*'.*Give source_lang"):
        read_corrections(free)


def test_units_of_tmx_without_a_language_are_left_out(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("hf_editable.operations.corrections.tmx.logger.warning", warnings.append)
    units = [unit(("de", "hund"), ("fr", "chien")), unit(("de", "katze"), ("en", "cat"))]
    path = write(tmp_path, "a.tmx", tmx(*units))
    assert pairs(read_corrections(path, target_lang="en")) == [("katze", "cat")]
    assert len(warnings) == 1 and "1 of 2 units" in warnings[0]
    with pytest.raises(
        EditableValueError, match=r"no unit in both 'its source language' and 'es'.*\['de', 'en', 'fr'\]"
    ):
        read_corrections(path, target_lang="es")


BOMB = '<!DOCTYPE tmx [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n'
EXTERNAL = '<!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/hostname">]>\n'
PAIR = unit(("de", "a"), ("en", "b"))


@pytest.mark.parametrize(
    "content, message",
    [
        (tmx(unit(("de", "&b;"), ("en", "b")), before=BOMB), r"line 2: it declares the entity 'a'"),
        (tmx(unit(("de", "&x;"), ("en", "b")), before=EXTERNAL), r"line 2: it declares the entity 'x'"),
        (
            tmx(unit(("de", "a&nbsp;"), ("en", "b")), before='<!DOCTYPE tmx SYSTEM "t.dtd">\n'),
            r"&nbsp; is not defined",
        ),
        (tmx(unit(("de", "a&nbsp;"), ("en", "b"))), r"line 5: is not well-formed XML \(undefined entity"),
        (tmx(PAIR)[:-8], r"line 6: is not well-formed XML"),
        (tmx(PAIR).replace("UTF-8", "klingon"), r"line 1: is not well-formed XML \(unknown encoding"),
        (tmx(PAIR, version="2.0"), r"line 2: its version is '2\.0'\. Export it as one of 1\.1, "),
        ("<xliff/>", r"line 1: <xliff> is the root, not <tmx>"),
        (tmx(unit(("de", "a <g>b</g>"), ("en", "b"))), r"line 5: <seg> has <g> in it"),
        (tmx(PAIR.replace(' xml:lang="en"', "")), r"line 5: <tuv> has no xml:lang"),
        (
            tmx(unit(("de", "a"), ("en", "b"), ("en", "c"))),
            r"unit 1\): target_lang='en' is met by \['en', 'en'\]\. Keep",
        ),
        (tmx(unit(("de", "a"), ("en-GB", "b"), ("en-US", "c"))), r"is met by \['en-GB', 'en-US'\]\. Give one of them"),
        (tmx(), "has no corrections"),
    ],
)
def test_translation_memories_that_are_refused(tmp_path, content, message):
    path = write(tmp_path, "a.tmx", content)
    with pytest.raises((EditableFileError, EditableValueError), match=message) as raised:
        read_corrections(path, target_lang="en")
    assert "a.tmx" in str(raised.value)


def test_the_target_language_is_needed_where_there_are_several(tmp_path):
    path = write(tmp_path, "a.tmx", tmx(unit(("de", "a"), ("en", "b"), ("fr", "c"))))
    with pytest.raises(EditableValueError, match=r"its other languages are \['en', 'fr'\]\. Give target_lang"):
        read_corrections(path)
    with pytest.raises(EditableValueError, match=r"'de' is both source_lang and target_lang='de'"):
        read_corrections(path, source_lang="de", target_lang="de")


def test_conflicts_are_of_one_source_with_two_targets(tiny_tokenizer):
    corrections = [
        Correction("der hund", "the dog", place="line 2"),
        Correction("der mann", "the man"),
        Correction("der hund", "the dog"),
        Correction("der  hund", "the man", place="line 5"),
        Correction("der mann", "the man", note="again"),
    ]
    assert find_conflicts(corrections) == []
    (conflict,) = find_conflicts(corrections, tiny_tokenizer)
    assert conflict.source == "der hund" and conflict.corrections == (corrections[0], corrections[2], corrections[3])
    assert str(conflict) == "'der hund' is corrected to 'the dog' (line 2) and to 'the man' (line 5)"
