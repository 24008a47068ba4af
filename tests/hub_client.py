"""What tests/test_hub.py starts in processes of their own, as clients of its Hub: each prints what it saw as JSON."""

import json
import os
import sys
from pathlib import Path

import datasets
import transformers
from hub_server import TOKEN
from huggingface_hub import HfApi
from huggingface_hub import logging as hub_logging
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    EditableError,
    EditableSeq2SeqTrainer,
    EditableSeq2SeqTrainingArguments,
    EditPatch,
    TranslationEditor,
    evaluate_edits,
)


MODEL, PATCH, CARDS = "tester/editable", "tester/patch", "tester/cards"


def translations(model, tokenizer, sources):
    inputs = tokenizer(sources, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    output = model.eval().generate(**inputs, num_beams=3, max_new_tokens=12)
    return tokenizer.batch_decode(output, skip_special_tokens=True)


def make_trainer(folder, **options):
    tokenizer = AutoTokenizer.from_pretrained(folder / "start")
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(folder / "start")
    pairs, edits = (datasets.load_from_disk(folder / name) for name in ("pairs", "edits"))
    rows = pairs.map(
        lambda pair: dict(tokenizer(pair["source"]), labels=tokenizer(text_target=pair["target"])["input_ids"]),
        remove_columns=pairs.column_names,
    )
    settings = {"learning_rate": 5e-3, "save_steps": 2, "logging_steps": 1, "max_steps": 4, "log_level": "debug"}
    args = EditableSeq2SeqTrainingArguments(
        str(folder / "run"), push_to_hub=True, hub_model_id=MODEL, hub_token=TOKEN, hub_private_repo=True,
        use_cpu=True, report_to="none", dataloader_pin_memory=False, **{**settings, **options},
    )  # fmt: skip
    return EditableSeq2SeqTrainer(
        model, args, train_dataset=rows, eval_dataset=rows.select(range(4)), edit_dataset=edits,
        processing_class=tokenizer,
    )  # fmt: skip


def train(folder, sources):
    """Train and push; a person changes the card; train and push again."""
    trainer = make_trainer(folder)
    trainer.train()
    trainer.evaluate()
    commit = trainer.push_to_hub(license="mit", language=["de", "en"], dataset="Tiny pairs")
    seen = {"commit": commit.oid, "translations": translations(trainer.model, trainer.processing_class, sources)}
    readme = folder / "run" / "README.md"
    seen["card"] = readme.read_text()
    api = HfApi(token=TOKEN)
    api.create_tag(MODEL, tag="v1")
    text = seen["card"] + "\nA person's remark.\n"
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=MODEL)
    again = make_trainer(folder, max_steps=2, hub_strategy="end", save_strategy="no")
    again.train()
    seen["second"] = again.push_to_hub().oid
    readme.write_text("Another person's card.")
    seen["third"] = again.push_to_hub(commit_message="Third").oid
    seen["aside"] = (folder / "run" / "_README.md").read_text()
    return seen


def patch(folder, sources):
    """Load by name, correct a translation, push the patch to the main branch and to another."""
    options = {"revision": "v1", "token": TOKEN}
    tokenizer = AutoTokenizer.from_pretrained(MODEL, **options)
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(MODEL, **options)
    seen = {"translations": translations(model, tokenizer, sources), "type": type(model).__name__}
    model = type(model).from_pretrained(MODEL, **options)
    result = TranslationEditor(model, tokenizer).edit(sources[0], "the dog sees the ball .")
    with model.edited(result.patch):
        seen["patched"] = translations(model, tokenizer, sources)
    seen["success"], seen["alpha"] = result.success, model.edit_config.learning_rate
    seen["main"] = result.patch.push_to_hub(PATCH, token=TOKEN, private=True).oid
    result.patch.source = "another text"
    seen["branch"] = result.patch.push_to_hub(PATCH, token=TOKEN, revision="candidate/1").oid
    # What was loaded with a token is saved and pushed without it.
    model.save_pretrained(folder / "saved")
    tokenizer.save_pretrained(folder / "saved")
    return seen


def apply(folder, sources):
    """Vanilla transformers loads the model by name and by revision; the patch, by name, fits it."""
    first = json.loads((folder / "train.json").read_text())["commit"]
    options = {"revision": first, "token": TOKEN}
    tokenizer = AutoTokenizer.from_pretrained(MODEL, **options)
    model, info = AutoModelForSeq2SeqLM.from_pretrained(MODEL, output_loading_info=True, **options)
    seen = {"type": type(model).__name__, "info": {name: sorted(value) for name, value in info.items()}}
    seen["translations"] = translations(model, tokenizer, sources)
    loaded = EditPatch.from_pretrained(PATCH, token=TOKEN)
    loaded.apply(model)
    seen["patched"], seen["base"] = translations(model, tokenizer, sources), [loaded.base_model, loaded.base_revision]
    loaded.revert(model)
    seen["reverted"] = translations(model, tokenizer, sources)
    branch = json.loads((folder / "patch.json").read_text())["branch"]
    seen["sources"] = [
        EditPatch.from_pretrained(PATCH, token=TOKEN, **which).source
        for which in ({}, {"revision": "candidate/1"}, {"revision": branch})
    ]
    stranger = {"token": False, "cache_dir": folder / "empty"}
    wrong = [("/nowhere", {}), ("no/such", {}), (PATCH, {"revision": "no"}), (PATCH, stranger), (MODEL, {})]
    seen["errors"] = []
    for name, which in wrong:
        try:
            EditPatch.from_pretrained(name, **{"token": TOKEN, **which})
        except EditableError as error:
            seen["errors"].append(f"{type(error).__name__}: {error}")
    return seen


def cards(folder, sources):
    """Push models and patches again and again; a person changes their cards in between."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "start")
    model = AutoEditableModelForSeq2SeqLM.from_pretrained(folder / "start").eval()
    pairs, edits = (datasets.load_from_disk(folder / name) for name in ("pairs", "edits"))
    report = evaluate_edits(model, tokenizer, edits, pairs, num_edits=2, num_test=4, num_beams=2, name="tiny")
    seen = {"summary": report.summary, "commits": []}

    def push(thing, **options):
        seen["commits"].append(thing.push_to_hub(CARDS, token=TOKEN, **options).oid)

    push(model)
    push(model, report=report, tags=["own-tag"])
    HfApi(token=TOKEN).upload_file(path_or_fileobj=b"By hand.", path_in_repo="README.md", repo_id=CARDS)
    model.lm_head.weight.data += 1.0
    push(model, report=report)
    push(TranslationEditor(model, tokenizer).edit(sources[0], "the dog sees .").patch)
    model.final_logits_bias += 1.0
    push(model, create_pr=True)
    model.save_pretrained(folder / "local", push_to_hub=True, repo_id="tester/saved", token=TOKEN, private=True)
    return seen


if __name__ == "__main__":
    command, place = sys.argv[1], Path(sys.argv[2])
    os.chdir(place)
    transformers.logging.set_verbosity_debug()
    hub_logging.set_verbosity_debug()
    outcome = globals()[command](place, json.loads((place / "sources.json").read_text()))
    (place / f"{command}.json").write_text(json.dumps(outcome))
