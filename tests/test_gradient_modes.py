"""Everything public comes to the same where the caller has gradients off, as services have."""

from collections.abc import Callable

import pytest
import torch
from datasets import Dataset

from hf_editable import TranslationEditor, evaluate_edits, mine_edits, mine_prefixes
from hf_editable.app.sessions import Sessions
from hf_editable.data.references import References
from hf_editable.evaluation import edit_sequence
from hf_editable.operations import Correction, EditStore, ImpactGate, apply_corrections


FEW = {"max_steps": 3, "num_alternatives": 2}


def made(result):
    return result.steps, result.loss, result.patch.fingerprint()


def edits(model, tokenizer, pairs, folder):
    editor = TranslationEditor(model, tokenizer, num_beams=2)
    inputs = editor.collator.edit_inputs({**pairs[0], "alternatives": [pairs[7]["target"]]}, model.device)
    yield made(model.edit(**inputs))
    yield made(editor.edit(pairs[0]["source"], pairs[5]["target"], keep=[(pairs[3]["source"], pairs[3]["target"])]))
    sources, targets = [[pair[name] for pair in pairs[1:3]] for name in ("source", "target")]
    yield made(editor.edit_jointly(sources, targets, [[pairs[4]["target"]]] * 2, max_rounds=2))


def families(model, tokenizer, pairs, folder):
    references = References(tokenizer, pairs[8:10])
    for name in ("kl", "finetune_edited", "cache"):
        editor = TranslationEditor(model, tokenizer, num_beams=2, editor=name, references=references, **FEW)
        yield made(editor.edit(pairs[0]["source"], pairs[5]["target"], max_rounds=2))


def stores(model, tokenizer, pairs, folder):
    editor = TranslationEditor(model, tokenizer, num_beams=2, **FEW)
    store, gate = EditStore.create(folder / "store", model), ImpactGate(editor, pairs[10:14], max_lost=None)
    for pair in pairs[:2]:
        result = editor.edit(pair["source"], pair["target"], max_rounds=2)
        yield [vars(change) for change in gate.measure(result.patch).changed]
        store.add(result)
        result.patch.apply(model)
    yield store.revert(store.edits[0].id, editor, gate, allow_lost=True).patch.fingerprint()


def lists(model, tokenizer, pairs, folder):
    editor = TranslationEditor(model, tokenizer, num_beams=2, **FEW)
    store = EditStore.create(folder / "store", model)
    wanted = [Correction(pair["source"], pair["target"]) for pair in pairs[:2]]
    report = apply_corrections(editor, wanted, store, folder / "list", save_model=False, max_rounds=2)
    yield [(row["outcome"], row["after"]) for row in report.rows]


def sessions(model, tokenizer, pairs, folder):
    editor = TranslationEditor(model, tokenizer, num_beams=2, **FEW)
    _, session = Sessions(editor, folder / "app", ImpactGate(editor, pairs[:3], max_lost=None)).open()
    for pair in pairs[:2]:
        yield made(session.propose(pair["source"], pair["target"]).result)
        yield len(session.measure().changed)
        session.keep()
    session.undo_last()
    yield session.translate(pairs[0]["source"])


def measures(model, tokenizer, pairs, folder):
    data = Dataset.from_list(pairs[:6])
    mined = mine_edits(model, tokenizer, data, num_alternatives=2)
    yield mined.to_list()
    yield mine_prefixes(model, tokenizer, mined).to_list()
    for evaluate in (evaluate_edits, edit_sequence):
        report = evaluate(model, tokenizer, mined, data, num_edits=2, num_beams=2, **FEW)
        yield report.summary["num_edits"], [row["loss"] for row in report.rows]


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("work", [edits, families, stores, lists, sessions, measures], ids=lambda work: work.__name__)
def test_the_same_with_gradients_off(make_tiny_model, tiny_tokenizer, tiny_pairs, tmp_path, work: Callable):
    found, modes = {}, {"on": torch.enable_grad, "inference": torch.inference_mode}
    for name, mode in {**modes, **({"off": torch.no_grad} if work is edits else {})}.items():
        model = make_tiny_model()
        with mode():
            found[name] = list(work(model, tiny_tokenizer, tiny_pairs, tmp_path / name))
        for values in state(model).values():
            assert not values.is_inference()
    assert all(values == found["on"] for values in found.values())
