"""What the tests of lists of corrections share: a tiny model that has learned its pairs, and corrections of it."""

import torch

from hf_editable import DataCollatorForEditableSeq2Seq, TranslationEditor
from hf_editable.operations import EditStore
from hf_editable.operations.bulk.apply_corrections import apply_corrections
from hf_editable.operations.corrections.correction_list import Correction


def learn(model, tokenizer, pairs):
    """Train a tiny model until it says the targets of the pairs."""
    torch.manual_seed(0)
    features = [
        {"input_ids": tokenizer(pair["source"]).input_ids, "labels": tokenizer(text_target=pair["target"]).input_ids}
        for pair in pairs
    ]
    batch = DataCollatorForEditableSeq2Seq(tokenizer, model)(features)
    parameters = [parameter for name, parameter in model.named_parameters() if not name.startswith("editor.")]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(120):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.edit_config = model.edit_config.replace(num_alternatives=4, max_steps=20)
    return model


def wanted(pairs, count=4):
    """Corrections to translations of other sentences; the second one is right already."""
    rows = [Correction(pairs[4 * i]["source"], pairs[(4 * i + 5) % 24]["target"]) for i in range(count)]
    rows.insert(1, Correction(pairs[23]["source"], pairs[23]["target"]))
    return rows


def run(model, tokenizer, corrections, folder, **options):
    """One run, that goes on with what is in the folder."""
    editor = TranslationEditor(model, tokenizer, num_beams=2, batch_size=32)
    path = folder / "store"
    store = EditStore.open(path) if (path / "store.json").exists() else EditStore.create(path, model)
    return apply_corrections(editor, corrections, store, folder / "out", **options)


def timeless(rows):
    """Rows without what differs between a run and one that was interrupted: times, and a count that is not stored."""
    left_out = ("milliseconds", "rounds")
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def contents(folder):
    """All files under a folder, by their names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
