"""What is public refuses arguments of the wrong type or range by name, with the value, and says what to give."""

import inspect

import pytest
from datasets import Dataset

import hf_editable
from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    DataCollatorForEditableSeq2Seq,
    EditableTypeError,
    EditableValueError,
    EditPatch,
    EditReport,
    TranslationEditor,
    TranslationTrainer,
    evaluate_edits,
    mine_edits,
    mine_prefixes,
    set_languages,
)
from hf_editable.checks import checked


ROWS = Dataset.from_list([{"source": "der hund", "target": "the dog", "alternatives": ["the man"]}])
SENTENCES = (each for each in ["der hund"])


@pytest.fixture(scope="module")
def world(make_tiny_model, tiny_tokenizer):
    """A model, what belongs to it, and an edit of it."""
    model = make_tiny_model()
    editor = TranslationEditor(model, tiny_tokenizer, num_beams=2)
    row = {"source": "der hund sieht", "target": "the dog", "alternatives": ["the man"]}
    inputs = editor.collator.edit_inputs(row, model.device)
    return {"model": model, "tokenizer": tiny_tokenizer, "editor": editor, "inputs": inputs}


def edit(**given):
    return lambda w: w["editor"].edit(**{"source": "der hund", "target": "the dog", **given})


def edit_tensors(**given):
    def call(w):
        made = {name: change(w["inputs"][name]) for name, change in given.items()}
        return w["model"].edit(**{**w["inputs"], **made})

    return call


def editor(**given):
    return lambda w: TranslationEditor(**{"model": w["model"], "tokenizer": w["tokenizer"], **given})


def function(which, **given):
    def call(w):
        names = {"model": w["model"], "tokenizer": w["tokenizer"], "edits": ROWS, "test_set": ROWS, "dataset": ROWS}
        taken = inspect.signature(which).parameters
        return which(**{**{name: value for name, value in names.items() if name in taken}, **given})

    return call


TYPES = [
    (editor(model="opus-mt-de-en"), r"A str has no edit\(\). Load it with AutoEditableModel"),
    (editor(tokenizer=None), r"tokenizer=None is of type NoneType. Give a .*AutoTokenizer.from_pretrained loads one"),
    (editor(num_beams="5"), r"num_beams='5' is of type str. Give a whole number \(int\)"),
    (editor(num_beams=True), r"num_beams=True is of type bool"),
    (editor(batch_size=1.5), r"batch_size=1.5 is of type float. Give a whole number \(int\)"),
    (editor(editor=3), r"editor=3 is of type int. Give a string, or None"),
    (editor(references="pairs"), r"references='pairs' is of type str. Give a References, or a list"),
    (edit(source=None), r"source=None is of type NoneType. Give a string"),
    (edit(target=3), r"target=3 is of type int. Give a string"),
    (edit(alternatives="text"), r"alternatives='text' is of type str. Give a list .*such as \['text'\], or None"),
    (edit(alternatives=["text", None]), r"alternatives=\['text', None\] is of type list. Give a list of which each"),
    (edit(max_rounds="20"), r"max_rounds='20' is of type str"),
    (edit(max_steps=2.5), r"max_steps=2.5 is of type float. Give a whole number \(int\), or None"),
    (edit(shrink="no"), r"shrink='no' is of type str. Give True or False"),
    (edit(keep=["der hund"]), r"keep=\['der hund'\] is of type list. Give a list .*a pair of a string and a string"),
    (lambda w: w["editor"].edit_jointly("a", "b"), r"sources='a' is of type str. Give a list .*such as \['a'\]"),
    (lambda w: w["editor"].translate(SENTENCES), r"sources=<generator .* is of type generator.*list\(...\) of it"),
    (lambda w: w["editor"].translate("der hund"), r"sources='der hund' is of type str.*such as \['der hund'\]"),
    (lambda w: w["editor"].translate([None]), r"sources=\[None\] is of type list"),
    (lambda w: w["editor"].written(3, "der hund"), r"target=3 is of type int"),
    (lambda w: w["model"].edited("patch"), r"patch='patch' is of type str. Give an EditPatch \(EditPatch.from_pre"),
    (lambda w: w["model"].edit("der hund"), r"input_ids='der hund' is of type str. Give a Tensor"),
    (lambda w: w["model"].edit_jointly(w["inputs"]), r"edits=\{.* is of type dict. Give a list"),
    (lambda w: w["model"].load_editor_state(3), r"folder=3 is of type int. Give a string, or a path"),
    (lambda w: setattr(w["model"], "edit_config", {}), r"config=\{\} is of type dict. Give an EditConfig"),
    (edit_tensors(labels=lambda t: t.float()), r"labels is of torch.float32, .* whole numbers. Give labels.long\(\)"),
    (edit_tensors(labels=lambda t: t.tolist()), r"labels=\[\[.* is of type list. Give a Tensor"),
    (lambda w: EditPatch.from_pretrained(None), r"name_or_path=None is of type NoneType. Give a string, or a path"),
    (lambda w: EditPatch({}, "").apply("model"), r"model='model' is of type str. Give a Module"),
    (lambda w: EditPatch({}, "").save_pretrained(3), r"save_directory=3 is of type int"),
    (lambda w: EditPatch({}, "").push_to_hub(3), r"repo_id=3 is of type int"),
    (lambda w: AutoEditableModelForSeq2SeqLM.from_pretrained(3), r"name_or_path=3 is of type int"),
    (lambda w: AutoEditableModelForSeq2SeqLM.from_config("marian"), r"config='marian' is of type str"),
    (lambda w: AutoEditableModelForSeq2SeqLM.from_model("marian"), r"model='marian' is of type str. Give a Module"),
    (lambda w: DataCollatorForEditableSeq2Seq("marian"), r"tokenizer='marian' is of type str"),
    (lambda w: w["editor"].collator.collate_edits(["der hund"]), r"rows=\['der hund'\] is of type list"),
    (function(evaluate_edits, model="marian"), r"A str has no edit\(\)"),
    (function(evaluate_edits, edits=[{}]), r"edits=\[\{\}\] is of type list. Give a Dataset \(Dataset.from_list"),
    (function(evaluate_edits, record_gigabytes="4"), r"record_gigabytes='4' is of type str. Give a number \(float\)"),
    (function(mine_edits, tokenizer=None), r"tokenizer=None is of type NoneType"),
    (function(mine_edits, dataset=["der hund"]), r"dataset=\['der hund'\] is of type list"),
    (function(mine_prefixes, num_beams="5"), r"num_beams='5' is of type str"),
    (lambda w: set_languages(w["model"], w["tokenizer"], None, "en"), r"source_lang=None is of type NoneType"),
    (lambda w: TranslationTrainer(w["model"], None), r"args=None is of type NoneType. Give a TranslationTraining"),
    (lambda w: EditReport.load(3), r"output_dir=3 is of type int"),
]
VALUES = [
    (editor(num_beams=0), r"num_beams=0: it must be a whole number, 1 or more"),
    (editor(num_beams=9000), r"num_beams=9000: it must be a whole number, 1 or more, and 1000 at most"),
    (editor(batch_size=-1), r"batch_size=-1: it must be a whole number, 1 or more"),
    (editor(editor="none"), r"none"),
    (edit(source=" "), r"source is empty"),
    (edit(target=""), r"target is empty"),
    (edit(max_rounds=0), r"max_rounds=0: it must be a whole number, 1 or more"),
    (edit(alternatives=[]), r"'der hund' has no alternatives to outrank. Give some, or None"),
    (edit_tensors(labels=lambda t: t[0]), r"labels of shape"),
    (
        edit_tensors(labels=lambda t: t + 1000),
        r"labels has token ids from 10\d\d to 10\d\d; those of the model go from 0",
    ),
    (edit_tensors(input_ids=lambda t: -t), r"input_ids has token ids from -\d+ to -\d+"),
    (edit_tensors(input_ids=lambda t: t.to("meta")), r"input_ids is on the device 'meta', the model on 'cpu'. Give"),
    (edit_tensors(attention_mask=lambda t: t[:, 1:]), r"attention_mask of shape \(1, \d\), input_ids of shape"),
    (edit_tensors(input_ids=lambda t: t[:, :0]), r"input_ids of shape \(1, 0\)"),
    (function(evaluate_edits, num_edits="2"), r"num_edits, the number of rows to take='2': it must be a whole number"),
    (function(evaluate_edits, verify=-1), r"verify=-1: it must be"),
    (function(mine_edits, num_alternatives=0), r"num_alternatives=0: it must be"),
    (function(mine_prefixes, batch_size=0), r"batch_size=0: it must be"),
]


@pytest.mark.parametrize("call, message", TYPES)
def test_types_are_refused_by_name(world, call, message):
    with pytest.raises(EditableTypeError, match=message):
        call(world)


@pytest.mark.parametrize("call, message", VALUES)
def test_values_are_refused_by_name(world, call, message):
    with pytest.raises(EditableValueError, match=message):
        call(world)


def test_all_that_is_public_and_called_checks_its_arguments():
    """Functions, and the classes that are made by hand; the others are made here, or have a check of their own."""
    own = {"EditConfig", "EditableSeq2SeqTrainer"}
    made = {"EditPatch", "EditReport", "EditResult", "EditableMixin", "EditableSeq2SeqLMOutput"}
    made |= {"JointEditResult", "TranslationEditResult", "AutoEditableModelForSeq2SeqLM", "BaseLoss", "EditOptimizer"}
    unchecked = set()
    for name in hf_editable.__all__:
        thing = getattr(hf_editable, name)
        if name in own | made or name.endswith(("Error", "Arguments")) or inspect.ismodule(thing):
            continue
        called = thing.__init__ if inspect.isclass(thing) else thing
        if called.__code__ is not checked(called).__code__:
            unchecked.add(name)
    assert unchecked == set()


def test_columns_of_datasets_are_lists(world):
    said = world["editor"].translate(ROWS["source"])
    assert said == world["editor"].translate(["der hund"]) == world["editor"].translate(("der hund",))
