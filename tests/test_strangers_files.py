"""What strangers may send: files that cost time or memory, texts that are none, configurations that ask for hours."""

import copy
import json
import os
import re
import resource
import sys
import time

import pytest

from hf_editable import EditableFileError, EditableValueError, EditConfig, EditPatch
from hf_editable.editors import make_editor
from hf_editable.modeling.checkpoints import stored_edit_config
from hf_editable.models import layers
from hf_editable.operations.corrections.correction_list import Correction
from hf_editable.operations.corrections.readers import read_corrections
from hf_editable.operations.store.manifest import Manifest
from hf_editable.runs.files import read_saved
from hf_editable.runs.fingerprints import fingerprint
from hf_editable.runs.journal import Journal
from hf_editable.runs.reading import parse_json
from hf_editable.tail.decoder_tail import Tail


LAYER = "model.decoder.layers.1.fc1.weight"


@pytest.fixture(autouse=True)
def within_bounds():
    """Refused within seconds, and without what a file claims to hold coming to memory."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 5
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 600 * 2**20


@pytest.fixture
def patch(tiny_model):
    tensors = {LAYER: tiny_model.get_parameter(LAYER).detach()}
    return EditPatch({LAYER: tensors[LAYER] + 1}, fingerprint(tensors), source="Grüße", target="regards")


@pytest.fixture
def folder(patch, tmp_path):
    patch.save_pretrained(tmp_path / "patch")
    return tmp_path / "patch"


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def sparse(path):
    size = path.stat().st_size if path.exists() else 0
    with open(path, "ab") as file:
        file.truncate(max(size, 1) + 50 * 2**30)


READERS = {
    "patch's tensors": ("edit_model.safetensors", EditPatch.from_pretrained),
    "patch's configuration": ("edit_config.json", EditPatch.from_pretrained),
    "store": ("store.json", Manifest.read),
    "journal": ("rows.jsonl", lambda folder: Journal(folder / "rows.jsonl", {})),
    "report": ("report.json", lambda folder: read_saved(folder, "report.json", dict, "save")),
    **{kind: (f"a.{kind}", lambda folder, kind=kind: read_corrections(folder / f"a.{kind}"))
       for kind in ("csv", "tsv", "jsonl", "tmx")},
}  # fmt: skip


@pytest.mark.parametrize("make", [pipe, device, sparse])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_or_a_huge_one_is_refused(folder, reader, make):
    name, read = READERS[reader]
    make(folder / name)
    with pytest.raises(EditableFileError) as refused:
        read(folder)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


def test_tensors_are_held_against_the_model_before_they_are_read(folder, patch, tiny_model):
    file = folder / "edit_model.safetensors"
    assert EditPatch.from_pretrained(folder, model=tiny_model).names == [LAYER]
    # A whole file of the right form, whose zeros are not on the disk.
    for name, size in ((LAYER, 2**30), ("model.nothing", 4)):
        header = json.dumps({name: {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
        file.write_bytes(len(header).to_bytes(8, "little") + header)
        with open(file, "ab") as content:
            content.truncate(8 + len(header) + 4 * size)
        with pytest.raises(EditableFileError, match="is not an edit patch: .*(no parameter|files of up to)"):
            EditPatch.from_pretrained(folder, model=tiny_model)
    file.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(EditableFileError, match="the header of edit_model.safetensors is 1,099,511,627,776 bytes"):
        EditPatch.from_pretrained(folder)


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_are_finite(folder, value):
    path = folder / "edit_config.json"
    text = json.dumps({**json.loads(path.read_text(encoding="utf-8")), "loss_after": "@"})
    path.write_text(text.replace('"@"', value))
    with pytest.raises(EditableFileError, match="edit_config.json is no JSON file: it has the (number|value)"):
        EditPatch.from_pretrained(folder)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\uDFFF": 1}', '[["a\\udc00b"]]', "[" * 100_000, '{"a":' * 100_000])
def test_json_that_is_refused(text):
    with pytest.raises(ValueError, match="half of a character|nested too deeply"):
        parse_json(text)
    assert parse_json('"\\ud83d\\ude00 \\u00e9"') == "😀 é"


def test_texts_have_whole_characters(folder, patch, tmp_path, tiny_model, tiny_tokenizer):
    from hf_editable import TranslationEditor

    path = folder / "edit_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "source": "a\ud800"}))
    (tmp_path / "a.jsonl").write_text('{"source": "a\\ud800", "target": "b"}')
    editor = TranslationEditor(tiny_model, tiny_tokenizer)
    calls = [
        lambda: EditPatch.from_pretrained(folder),
        lambda: read_corrections(tmp_path / "a.jsonl"),
        lambda: EditPatch({}, "0", source="a\ud800"),
        lambda: Correction("a\ud800", "b"),
        lambda: editor.translate(["a\ud800"]),
        lambda: editor.edit("der hund", "the \udfff dog"),
        lambda: editor.edit("der \udfff hund", "the dog sees the dog ."),
    ]
    for call in calls:
        with pytest.raises((EditableFileError, EditableValueError), match="half of a character"):
            call()


def tmx(inside, attributes=""):
    header = '<header srclang="de"/>'
    return f'<?xml version="1.0"?><tmx version="1.4">{header}<body><tu {attributes}>{inside}</tu></body></tmx>'


SEGMENT = '<tuv xml:lang="de"><seg>{}</seg></tuv><tuv xml:lang="en"><seg>b</seg></tuv>'
LONG = "a" * 10_000_000
LISTS = {
    "nested elements": ("a.tmx", tmx(SEGMENT.format("<hi>" * 200_000 + "a" + "</hi>" * 200_000)), "within each other"),
    "nested units": ("a.tmx", tmx("<x>" * 200_000 + "</x>" * 200_000), "within each other"),
    "an attribute": ("a.tmx", tmx(SEGMENT.format("a"), f'tuid="{LONG}"'), "an attribute of <tu> is longer"),
    "a segment": ("a.tmx", tmx(SEGMENT.format(LONG)), "its source has 10,000,000 characters"),
    "a cell": ("a.csv", f"source,target\na,{LONG}\n", "field larger than field limit"),
    "a quoted cell": ("a.csv", f'source,target\na,"{LONG}\n', "field larger than field limit"),
    "a cell without limit": ("a.tsv", f"source\ttarget\na\t{LONG}\n", "its target has 10,000,000 characters"),
    "a column": ("a.tsv", f"{LONG}\ttarget\na\tb\n", "no column 'source' among"),
    "a string": ("a.jsonl", json.dumps({"source": "a", "target": LONG}), "its target has 10,000,000 characters"),
    "depth": ("a.jsonl", "[" * 1_000_000, "line 1: it is nested too deeply. Give one JSON object a line"),
    "a number": ("a.jsonl", '{"source": "a", "target": "b", "id": ' + "9" * 100_000 + "}", "line 1: Exceeds"),
    "rows": ("a.tsv", "source\ttarget\n" + "a\tb\n" * 100_001, "has more than 100,000 rows. Split it"),
    "units": ("a.tmx", tmx("</tu><tu>" * 100_000), "it has more than 100,000 units. Split it"),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_are_refused(tmp_path, name):
    file, content, message = LISTS[name]
    (tmp_path / file).write_text(content)
    with pytest.raises((EditableFileError, EditableValueError), match=message) as refused:
        read_corrections(tmp_path / file)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


FIELDS = {
    "learning_rate": ["0.1", None, True, [], 10**400], "beta": ["a", None], "momentum": [{}], "epsilon": ["1"],
    "max_steps": [10_001, "3", None, 10**30], "num_alternatives": [100_000, 0, "32", 1.5],
    "length_penalty": ["1", True, []], "c_edit": ["1", None], "c_loc": [[1]], "optimizer": [3, None, ["adam"], {}],
    "base_loss": [1], "editor": ["", 3, None], "editor_options": [[], "a", 3], "checkpoint_edits": [1, "yes", None],
    "learn_coefficients": [0, "no"], "layers_to_transform": ["-1", 1.0, None, True, [True], ["a"], [0] * 1_001],
    "target_modules": [3, [3], ["a", None], "", [""], "a" * 1_001, ["a"] * 1_001, {"a": 1}], "exclude_modules": [0.5],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values])
def test_a_downloaded_configuration_of_wrong_types_or_sizes(tiny_model, name, value):
    config = copy.deepcopy(tiny_model.config)
    config.editable = {"version": 1, name: value}
    message = rf"config.json has 'editable'.*{name}=.*(it must be|choose one)"
    with pytest.raises(EditableValueError, match=message) as no:
        stored_edit_config(config)
    assert "Mend it in the file, or take the key out" in str(no.value) and len(str(no.value)) < 700


@pytest.mark.parametrize("value", [[], [1], "a", 3, True])
def test_a_downloaded_configuration_that_is_none(tiny_model, value):
    config = copy.deepcopy(tiny_model.config)
    config.editable = value
    with pytest.raises(EditableValueError, match="'editable'.*is no configuration of edits: it must be a dict"):
        stored_edit_config(config)


@pytest.mark.parametrize("options", [{"adamw_learning_rate": "1"}, {"weight_decay": [1]}, {"weight_decay": None}])
def test_options_of_an_editor_of_wrong_types(tiny_model, options):
    with pytest.raises(EditableValueError, match="editor_options=.*a value is of a wrong type.*'finetune_all'"):
        tiny_model.edit_config = EditConfig(editor="finetune_all", editor_options=options)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(?:\w|\.|\w\w)*[^\w.]", "takes more than"),
        (r"(?=(\w|\.|\w\w)*[^\w.]).*", "takes more than"),
        ("(?:" * 50 + "a" + "{100})" * 50, "repeats something more than"),
        ("(" * 490 + "a" + ")" * 490, "is no regular expression that can be matched|matches no module"),
        ("(", "is no regular expression that can be matched"),
        (r"(a+)+$", "matches no module"),
        (r"((.*)*)*y", "matches no module"),
    ],
)
def test_patterns_that_take_for_ever_are_stopped(tiny_model, monkeypatch, field, pattern, problem):
    monkeypatch.setattr(layers, "MATCHING_SECONDS", 0.2)
    start = time.process_time()
    with pytest.raises(EditableValueError, match=problem):
        Tail(tiny_model, EditConfig(**{field: pattern}))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [(r"(?:\w|\.|\w\w)*[^\w.]", "takes more than"), (".*nothing", "adapted_modules='.*nothing' cannot be adapted")],
)
def test_patterns_of_adapters_are_stopped_too(tiny_model, monkeypatch, pattern, problem):
    monkeypatch.setattr(layers, "MATCHING_SECONDS", 0.2)
    config = EditConfig(editor="lora", editor_options={"adapted_modules": pattern})
    with pytest.raises(EditableValueError, match=problem):
        make_editor(config, tiny_model).moved(tiny_model)
    config = EditConfig(editor="lora", editor_options={"adapted_modules": r".*decoder.*\.(fc1|fc2)"})
    names = make_editor(config, tiny_model).moved(tiny_model)
    assert len(names) == 4 and all("decoder" in name and ".fc" in name for name in names)


def test_patterns_are_those_of_peft(tiny_model):
    for pattern in (r".*\.1\.fc[12]", r"(?!.*encoder).*\.fc\d", r"model\.decoder\.layers\.\d{1,2}\.(fc1|fc2)"):
        names = set(Tail(tiny_model, EditConfig(target_modules=pattern)).parameters)
        assert {re.sub(r".*layers\.1\.|\.\w+$", "", name) for name in names} == {"fc1", "fc2"}


def test_no_private_path_is_published(patch, tmp_path, tiny_model):
    from hf_editable import AutoEditableModelForSeq2SeqLM

    home = tmp_path / "home" / "somebody" / "secret-project" / "my-model"
    tiny_model.save_pretrained(home)
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(home)
    edit = EditPatch(patch.changes, patch.base_fingerprint, base_model=model.config._name_or_path)
    edit.save_pretrained(tmp_path / "patch")
    model.save_pretrained(tmp_path / "saved")
    texts = {path: path.read_bytes() for each in ("patch", "saved") for path in (tmp_path / each).iterdir()}
    assert not [path for path, text in texts.items() if b"secret-project" in text]
    loaded = EditPatch.from_pretrained(tmp_path / "patch")
    assert loaded.base_model == "my-model" and edit.base_model == str(home)
    assert "| base model | my-model |" in (tmp_path / "patch" / "README.md").read_text()
    # What came from the Hub is known by its name; a folder of its cache has a revision, and is a path all the same.
    for name, expected in (("user/base", "user/base"), (str(home), "my-model"), ("C:\\u\\m\\", "m"), ("..", None)):
        copy_of = EditPatch(patch.changes, patch.base_fingerprint, base_model=name, base_revision="0123")
        copy_of.save_pretrained(tmp_path / "again")
        assert EditPatch.from_pretrained(tmp_path / "again").base_model == expected


CRAFTED = [
    'user/x")\nimport os; os.system("true")\nprint("',
    "user/x\n---\nlicense: evil\n---\n# Click [here](http://evil.example)",
    "<img src=http://evil.example/x> ![x](http://evil.example) `x` | y",
    "```\n````\n# Heading\n```python",
    "\x1b[31mred\u202e",
]


@pytest.mark.parametrize("text", CRAFTED)
def test_cards_show_what_strangers_wrote_as_text(patch, text, tmp_path):
    from huggingface_hub import ModelCard

    versions = {"torch": text, text: "1"}
    names = dict.fromkeys(("base_model", "base_revision", "created", "editor", "source", "target"), text)
    EditPatch(patch.changes, patch.base_fingerprint, **names, versions=versions).save_pretrained(tmp_path / "patch")
    card = (tmp_path / "patch" / "README.md").read_text(encoding="utf-8")
    assert ModelCard(card).data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    code = re.search(r"^```python\n(.*?)\n```\n", card, re.S | re.M)[1]
    assert [line for line in code.split("\n") if "os.system" in line or "evil" in line] == []
    compile(code, "card", "exec")
    fence = re.search(r"````text\n(.*?)\n````\n", card, re.S)[1]
    assert [line.split(":")[0] for line in fence.split("\n")] == ["source", "translation"]
    outside = card.replace(fence, "").replace(code, "")
    assert not re.search(r"(?<!\\)(<img|\[here|!\[x)|(?<!\\)`x|\x1b|\u202e|^# (Heading|Click)", outside, re.M)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in outside.split("\n") if line.startswith("|"))


def test_a_name_of_a_model_is_text_in_its_card(tiny_model):
    from hf_editable.hub.model_card import model_card

    name = 'x")\nprint("[evil](http://evil.example)'
    text = str(model_card(tiny_model, name))
    code = re.search(r"```python\n(.*?)\n```\n", text, re.S)[1]
    compile(code, "card", "exec")
    assert json.dumps(name) in code and "\n# evil.example)\n" in text
