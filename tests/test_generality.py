"""Edits and the variants of their sources."""

import copy
import json

import datasets
import numpy as np
import pytest
import sacrebleu
import torch

from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableTypeError,
    EditableValueError,
    NonFiniteEditError,
    TranslationEditor,
)
from hf_editable.cli.commands.measure_generality import main
from hf_editable.evaluation import GeneralityReport, measure_generality
from hf_editable.measures.source_variants import KINDS, NUMBER_WORDS, SAME_MEANING, NearestTexts, make_variant


OPTIONS = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8}


def variants(kind, text, count=40, **options):
    return {make_variant(kind, text, np.random.default_rng(seed), **options) for seed in range(count)}


def test_case():
    assert variants("first_letter", "der Hund bellt .") == {"Der Hund bellt ."}
    assert variants("first_letter", "„Über uns“") == {"„über uns“"}
    assert variants("first_letter", "12 !") == {None}
    assert variants("upper_case", "der hund, er bellt") == {
        "DER hund, er bellt",
        "der HUND, er bellt",
        "der hund, er BELLT",
    }
    assert variants("upper_case", "er sah ABC es") == {"er SAH ABC es"}
    assert variants("upper_case", "es ist") == {"es IST"} and variants("upper_case", "am 1.") == {None}


def test_punctuation():
    assert variants("no_punctuation", "der hund bellt .") == {"der hund bellt"}
    assert variants("no_punctuation", "Wer bellt?!") == {"Wer bellt"}
    assert variants("no_punctuation", "ohne punkt") == variants("no_punctuation", "...") == {None}
    assert variants("other_punctuation", "der hund bellt .") == {"der hund bellt !"}
    assert variants("other_punctuation", "Der Hund bellt!") == {"Der Hund bellt."}
    assert variants("other_punctuation", "wer bellt ? ") == {"wer bellt . "}
    assert variants("other_punctuation", "und dann...") == {"und dann."}
    assert variants("other_punctuation", "3.5 meter, ohne punkt") == {None}


def test_typos():
    assert variants("typo", "ein hund .") == {"ein hnud .", "ein hudn ."}
    for text in variants("typo", "der schöne mann sieht ihn"):
        (place,) = [
            i
            for i, (old, new) in enumerate(zip(["der", "schöne", "mann", "sieht", "ihn"], text.split()))
            if old != new
        ]
        old, new = ["der", "schöne", "mann", "sieht", "ihn"][place], text.split()[place]
        assert len(old) >= 4 and sorted(old) == sorted(new) and old[0] == new[0] and len(old) == len(new)
        assert sum(a != b for a, b in zip(old, new, strict=True)) == 2
    assert len(variants("typo", "der schöne mann sieht ihn")) > 5
    assert variants("typo", "naaa ist es so") == {None}


def test_numbers():
    assert variants("number", "der hund hat ein haus .") == {None}
    found = variants("number", "Zwei hunde .", 400)
    assert found == {f"{word.capitalize()} hunde ." for word in NUMBER_WORDS if word != "zwei"}
    assert variants("number", "drei hunde", number_words=["drei", "vier"]) == {"vier hunde"}
    assert variants("number", "three dogs", number_words=["three", "four"]) == {"four dogs"}
    digits = variants("number", "um 7 uhr", 400)
    assert digits == {f"um {digit} uhr" for digit in range(10) if digit != 7}
    years = variants("number", "im jahr 1990", 300)
    assert "im jahr 1990" not in years and all(1000 <= int(year.split()[-1]) <= 9999 for year in years)
    assert all(len(text.split()[-1]) == 3 and text != "bond 007" for text in variants("number", "bond 007", 300))
    # Only one of several numbers changes.
    assert all(sum(a != b for a, b in zip(text.split(), ["2", "3", "4"])) == 1 for text in variants("number", "2 3 4"))


def test_unknown_kinds_raise():
    with pytest.raises(EditableValueError, match="kind='anagram': choose one of first_letter"):
        make_variant("anagram", "der hund", np.random.default_rng(0))


def test_nearest_texts():
    corpus = ["der hund bellt .", "eine frau liest .", "der hund bellt laut .", "der hund bellt ."]
    nearest = NearestTexts(corpus)
    assert nearest("der hund bellt .") == "der hund bellt laut ."
    assert nearest(" der hund bellt . ") == "der hund bellt laut ."
    assert nearest("die frau liest") == "eine frau liest ." and nearest("xyz") is None
    # Rare parts of words say more than frequent ones.
    corpus = ["der hund ist da", "der esel ist da", "der kater ist da", "ein zebra"]
    assert NearestTexts(corpus)("der hund ist nah am zebra") == "der hund ist da"
    assert NearestTexts([*corpus, "der zebrafink ist da"])("der zebrastreifen ist da") == "der zebrafink ist da"
    with pytest.raises(EditableValueError, match="The corpus is empty"):
        NearestTexts([])


@pytest.fixture(scope="module")
def edits(tiny_edits):
    """Three edits, with a number in one."""
    rows = [dict(row) for row in tiny_edits.select(range(3))]
    rows[1]["source"] = rows[1]["source"].replace("der", "zwei")
    return datasets.Dataset.from_list(rows)


@pytest.fixture
def measure(tiny_model, tiny_tokenizer, edits, tiny_pairs):
    """Measures three edits of the tiny model; arguments replace the fixture's."""

    def run(**options):
        arguments = {"model": tiny_model, "tokenizer": tiny_tokenizer, "edits": edits}
        corpus = datasets.Dataset.from_list(tiny_pairs)
        return measure_generality(**{**arguments, "corpus": corpus, "max_steps": 20, **OPTIONS, **options})

    return run


def plain_translations(model, tokenizer, texts):
    outputs = [
        model.generate(tokenizer(text, return_tensors="pt").input_ids, num_beams=2, max_new_tokens=8) for text in texts
    ]
    return [tokenizer.decode(output[0], skip_special_tokens=True) for output in outputs]


@pytest.mark.parametrize("editor", [{}, {"editor": "finetune_all", "adamw_learning_rate": 0.01}, {"editor": "cache"}])
def test_rows_equal_plain_translations(editor, measure, tiny_model, tiny_tokenizer, edits, tiny_pairs):
    state = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    report = measure(**editor)
    assert all(torch.equal(tensor, state[name]) for name, tensor in tiny_model.state_dict().items())
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    nearest = NearestTexts([pair["source"] for pair in tiny_pairs])
    for row, edit in zip(report.rows, edits, strict=True):
        inputs = collator.edit_inputs(edit)
        result = tiny_model.edit(**inputs, max_steps=20, **editor)
        edited = copy.deepcopy(tiny_model)
        edited.load_state_dict(result.patch.tensors, strict=False)
        kinds = {variant["kind"]: variant for variant in row["variants"]}
        assert set(kinds) == set(KINDS) - (set() if "zwei" in edit["source"] else {"number"})
        assert kinds["neighbour"]["text"] == nearest(edit["source"]) != edit["source"]
        texts = [edit["source"], *(variant["text"] for variant in row["variants"])]
        assert all(text != edit["source"] for text in texts[1:])
        before = plain_translations(tiny_model, tiny_tokenizer, texts)
        after = plain_translations(edited, tiny_tokenizer, texts)
        if editor == {"editor": "cache"}:
            tokens = tiny_tokenizer(texts).input_ids
            after = [edit["target"] if ids == tokens[0] else said for ids, said in zip(tokens, after, strict=True)]
        assert [row["before"], *(variant["before"] for variant in row["variants"])] == before
        assert [row["decoded"], *(variant["after"] for variant in row["variants"])] == after
        assert (row["success"], row["decode_success"]) == (result.success, after[0] == edit["target"])
        for variant, old, new in zip(row["variants"], before[1:], after[1:], strict=True):
            assert variant["chrf_before"] == sacrebleu.sentence_chrf(old, [edit["target"]]).score
            assert variant["chrf"] == sacrebleu.sentence_chrf(new, [edit["target"]]).score
    changed = [variant["before"] != variant["after"] for row in report.rows for variant in row["variants"]]
    assert any(changed)
    if editor == {"editor": "cache"}:
        assert changed == [variant["same_tokens"] for row in report.rows for variant in row["variants"]]
    assert report.summary["decode_success_rate"] == np.mean([row["decode_success"] for row in report.rows])


def test_summary_sums_the_rows_up(measure, tiny_model, tiny_tokenizer, edits, monkeypatch):
    # What the editor says before and after, made so that every measure has another value.
    report = measure(learning_rate=0.03)
    for kind, values in report.summary["kinds"].items():
        found = [
            (variant, row["target"]) for row in report.rows for variant in row["variants"] if variant["kind"] == kind
        ]
        assert values["count"] == len(found) == (1 if kind == "number" else 3)
        assert values["target"] == np.mean([variant["after"] == target for variant, target in found])
        assert values["target_before"] == np.mean([variant["before"] == target for variant, target in found])
        assert values["unchanged"] == np.mean([variant["before"] == variant["after"] for variant, _ in found])
        gains = [variant["chrf"] - variant["chrf_before"] for variant, _ in found]
        assert values["gain"] == pytest.approx(np.mean(gains)) and values["closer"] == np.mean(np.array(gains) > 0)
        assert values["gain_interval"] is None  # of three variants
        assert values["chrf"] - values["chrf_before"] == pytest.approx(values["gain"])
    typos = [variant for row in report.rows for variant in row["variants"] if variant["kind"] == "typo"]
    assert not any(variant["same_tokens"] for variant in typos)
    assert any(values["unchanged"] < 1 for values in report.summary["kinds"].values())


def test_variants_depend_on_the_seed_and_the_edit_alone(measure):
    def texts(report):
        return {(row["index"], each["kind"]): each["text"] for row in report.rows for each in row["variants"]}

    all_of_them = texts(measure())
    assert texts(measure(kinds=["typo"], editor="cache")) == {
        key: text for key, text in all_of_them.items() if key[1] == "typo"
    }
    assert texts(measure(num_edits=1, seed=0)).items() <= all_of_them.items()
    assert texts(measure(seed=4)) != all_of_them


def test_resumed_equals_uninterrupted(measure, tiny_model, tmp_path, monkeypatch):
    whole = measure()
    edit, calls = tiny_model.edit, []

    def interrupted(**arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return edit(**arguments)

    monkeypatch.setattr(tiny_model, "edit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(output_dir=tmp_path)
    calls[:] = [None] * 3
    assert measure(output_dir=tmp_path) == whole and len(calls) == 4
    monkeypatch.setattr(tiny_model, "edit", None)
    assert measure(output_dir=tmp_path) == whole
    with pytest.raises(EditableValueError, match="kinds was .* and is now"):
        measure(output_dir=tmp_path, kinds=["typo"])


def test_edits_that_are_not_finite_change_nothing(measure, tiny_model, monkeypatch):
    def never(**arguments):
        raise NonFiniteEditError("NaN")

    monkeypatch.setattr(tiny_model, "edit", never)
    report = measure()
    assert report.summary["failed_edits"] == 3 and report.summary["success_rate"] == 0.0
    assert all(values["unchanged"] == 1.0 for values in report.summary["kinds"].values())


def test_decode_success_is_seen(measure, tiny_model, tiny_tokenizer, edits):
    tiny_model.generation_config.max_length = 9
    said = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2).translate([edits[0]["source"]])[0]
    edit = {**edits[0], "target": said, "alternatives": ["the the the"]}
    report = measure(edits=datasets.Dataset.from_list([edit]), max_new_tokens=None)
    assert report.rows[0]["decode_success"] and report.rows[0]["steps"] == 0
    assert all(values["unchanged"] == 1.0 for values in report.summary["kinds"].values())


def test_report_round_trip_table_and_picture(measure, tmp_path):
    report = measure(name="a|b", output_dir=tmp_path)
    loaded = GeneralityReport.load(tmp_path)
    assert loaded == GeneralityReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    report.summary["kinds"]["typo"] = {"count": 3, "target": 0.5, "closer": 0.25, "unchanged": 0.125}
    report.summary["kinds"]["typo"] |= {
        "chrf_before": 12.34,
        "chrf": 56.78,
        "gain": 44.44,
        "gain_interval": [1.0, 90.0],
    }
    table = GeneralityReport.table([report, report]).splitlines()
    assert len(table) == 2 + 2 * len(KINDS)
    row = table[2 + KINDS.index("typo")]
    assert row == "| a\\|b | typo | the same | 3 | 50.0% | 25.0% | 12.5% | 12.3 → 56.8 | 44.4 [1.0, 90.0] |"
    assert [line.split(" | ")[2] for line in table[2:9]] == ["the same"] * len(SAME_MEANING) + ["another"] * 2
    GeneralityReport.plot([report, report], tmp_path / "two.png")
    for name in ("two.png", "picture.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert report.summary["chrf_signature"] in (tmp_path / "report.md").read_text()
    with pytest.raises(EditableValueError, match="There is no report"):
        GeneralityReport.table([])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kinds": []}, EditableValueError, r"kinds=\[\]: choose one or more of first_letter"),
        ({"kinds": ["typo", "anagram"]}, EditableValueError, "'anagram'"),
        ({"seed": -1}, EditableValueError, "seed=-1"),
        ({"model": torch.nn.Linear(1, 1)}, EditableTypeError, r"A Linear has no edit\(\)"),
        ({"no_such_field": 1}, EditableTypeError, "EditConfig has no no_such_field"),
        ({"corpus": datasets.Dataset.from_dict({"text": ["a"]})}, EditableValueError, "corpus has 1 rows"),
    ],
)
def test_bad_arguments_raise(measure, options, error, message):
    with pytest.raises(error, match=message):
        measure(**options)


def test_command(tiny_model, tiny_tokenizer, edits, tiny_pairs, tmp_path, capsys):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    edits.save_to_disk(tmp_path / "edits")
    datasets.DatasetDict(test=datasets.Dataset.from_list(tiny_pairs)).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "model"), "--edits_dir", str(tmp_path / "edits"), "--data_dir"]
    argv += [str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), "--num_beams", "1", "--max_steps", "3"]
    argv += ["--kinds", "typo", "number", "--number_words", "zwei", "der", "--editor", "finetune_edited"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "table.md").read_text() and len(table.splitlines()) == 4
    assert (tmp_path / "out" / "picture.png").is_file()
    report = GeneralityReport.load(tmp_path / "out" / "model")
    assert report.summary["editor"] == "finetune_edited" and "--kinds typo number" in report.summary["command"]
    assert report.summary["kinds"]["number"]["count"] == 3
    for options, message in ((["--kinds", "anagram"], "kinds=['anagram']"), (["--editor", "magic"], "editor='magic'")):
        assert main([*argv, *options]) == 2
        assert message in capsys.readouterr().err
