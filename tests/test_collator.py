"""Edits as tensors, and what is refused."""

import pytest
import torch
from transformers import DataCollatorForSeq2Seq

from hf_editable import DataCollatorForEditableSeq2Seq, EditableValueError


@pytest.fixture
def collator(tiny_tokenizer, tiny_model):
    return DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)


EDIT = {
    "source": "der hund sieht .",
    "target": "the dog sees .",
    "alternatives": ["the dog .", "the man sees the dog ."],
}
LONGER = {"source": "der mann sieht den hund .", "target": "the man .", "alternatives": ["the dog sees ."]}


def test_edits_hold_the_tokens_of_their_texts(collator, tiny_tokenizer):
    edits = collator.collate_edits([EDIT, LONGER])
    assert edits["edit_input_ids"].shape == edits["edit_attention_mask"].shape == (2, 7)
    assert edits["edit_labels"].shape == (2, 5) and edits["edit_alternative_labels"].shape == (2, 2, 7)

    def text(ids):
        return tiny_tokenizer.decode([token for token in ids.tolist() if token != -100], skip_special_tokens=True)

    for row, edit in enumerate((EDIT, LONGER)):
        assert text(edits["edit_input_ids"][row]) == edit["source"]
        assert edits["edit_attention_mask"][row].sum() == len(edit["source"].split()) + 1
        assert text(edits["edit_labels"][row]) == edit["target"]
        shown = [text(ids) for ids in edits["edit_alternative_labels"][row] if (ids != -100).any()]
        assert shown == edit["alternatives"]
    assert (edits["edit_labels"] == tiny_tokenizer.eos_token_id).sum() == 2
    assert (edits["edit_labels"] != tiny_tokenizer.pad_token_id).all()


def test_useless_alternatives_are_left_out(collator):
    noisy = {**EDIT, "alternatives": ["", EDIT["target"], f" {EDIT['target']} ", *EDIT["alternatives"]]}
    expected, found = collator.collate_edits([EDIT]), collator.collate_edits([noisy])
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_other_spellings_of_the_target_are_no_alternatives(collator):
    edit = {**EDIT, "alternatives": ["the  dog sees .", "the dog ."]}
    labels = collator.collate_edits([edit])["edit_alternative_labels"][0]
    assert (labels != -100).any(-1).sum() == 1


def test_num_alternatives(tiny_tokenizer, tiny_model):
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model, num_alternatives=1)
    assert collator.collate_edits([EDIT])["edit_alternative_labels"].shape[1] == 1


def test_base_batches_are_those_of_the_stock_collator(collator, tiny_tokenizer, tiny_model):
    features = [{"input_ids": [5, 6, 2], "labels": [7, 2]}, {"input_ids": [5, 2], "labels": [7, 8, 9, 2]}]
    expected = DataCollatorForSeq2Seq(tiny_tokenizer, model=tiny_model)([dict(row) for row in features])
    found = collator([dict(row) for row in features])
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no edits to collate"),
        ([{**EDIT, "source": " "}], r"source is empty \(' '\)"),
        ([{**EDIT, "target": ""}], r"target is empty \(''\)"),
        ([{**EDIT, "alternatives": [EDIT["target"]]}], "No alternative of 'der hund sieht .' differs"),
        ([{**EDIT, "alternatives": []}], "No alternative"),
        ([{**EDIT, "source": "der hund " * 20}], "The source 'der hund .* is 41 tokens long; 32 are allowed"),
        ([{**EDIT, "alternatives": ["the dog " * 20]}], "The alternative 'the dog .* is 41 tokens long"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_edits(collator, rows, message):
    with pytest.raises(EditableValueError, match=message):
        collator.collate_edits(rows)
