"""Prefixes that push targets out of the beam."""

import datasets
import pytest
import torch

from hf_editable import DataCollatorForEditableSeq2Seq, EditableValueError, evaluate_edits, mine_prefixes
from hf_editable.cli.commands import mine_prefixes as command
from hf_editable.mining.target_prefixes import outranking


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ([[[], []], [[1], [2]], [[1, 2], [2, 2]]], []),
        ([[[], []], [[3], [2]], [[3, 4], [2, 5]]], [[2], [2, 5]]),
        ([[[]], [[1]], [[1, 3]], [[1, 3, 0]], [[1, 3, 0, 1]]], [[1, 3], [1, 3, 0]]),
    ],
    ids=["found", "lost at once", "lost later"],
)
def test_the_lowest_prefix_where_the_target_is_not_in_the_beam(live, expected):
    assert outranking([1, 2, 0], live) == expected


def plain_beam(model, source, num_beams, steps):
    """Prefixes of a beam search without an end, and their log-probabilities, by step."""
    beam = [([], 0.0)]
    found = []
    start = torch.tensor([[model.config.decoder_start_token_id]])
    for _ in range(steps):
        grown = []
        for prefix, score in beam:
            tokens = torch.cat([start, torch.tensor([prefix], dtype=torch.long)], dim=1)
            logits = model(input_ids=source, decoder_input_ids=tokens).logits[0, -1]
            for token, value in enumerate(logits.log_softmax(-1).tolist()):
                if token != model.config.eos_token_id:
                    grown.append(([*prefix, token], score + value))
        beam = sorted(grown, key=lambda item: -item[1])[:num_beams]
        found.append([prefix for prefix, _ in beam])
    return found


@torch.no_grad()
def test_prefixes_are_those_of_beam_search(tiny_model, tiny_tokenizer, tiny_edits):
    found = mine_prefixes(tiny_model, tiny_tokenizer, tiny_edits, num_beams=3, batch_size=4)
    assert found.remove_columns("prefixes").to_list() == tiny_edits.to_list()
    assert sum(map(len, found["prefixes"]))
    for edit in found:
        source = tiny_tokenizer(edit["source"], return_tensors="pt").input_ids
        target = tiny_tokenizer(text_target=edit["target"]).input_ids
        expected = [
            beam[-1]
            for length, beam in enumerate(plain_beam(tiny_model, source, 3, len(target)), 1)
            if target[:length] not in beam
        ]
        # The search may end before the target does.
        assert edit["prefixes"] == expected[: len(edit["prefixes"])] and len(edit["prefixes"]) >= 1


def test_edits_and_evaluations_take_them(tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs):
    found = mine_prefixes(tiny_model, tiny_tokenizer, tiny_edits, num_beams=2)
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    with_them = tiny_model.edit(**collator.edit_inputs(found[0]))
    assert with_them.initial_loss > tiny_model.edit(**collator.edit_inputs(tiny_edits[0])).initial_loss
    test_set = datasets.Dataset.from_list(tiny_pairs[:2])
    rows = evaluate_edits(tiny_model, tiny_tokenizer, found, test_set, num_beams=2).rows
    assert rows[0]["initial_loss"] == pytest.approx(with_them.initial_loss)


def test_training_takes_them(make_trainer, tiny_model, tiny_tokenizer, tiny_edits):
    found = mine_prefixes(tiny_model, tiny_tokenizer, tiny_edits, num_beams=2)
    logs = []
    for edits in (tiny_edits, found):
        trainer = make_trainer(objects={"edit_dataset": edits}, max_steps=1)
        trainer.train()
        logs.append(next(entry for entry in trainer.state.log_history if "edit_loss" in entry))
    assert logs[0]["base_loss"] == logs[1]["base_loss"] and logs[0]["edit_steps"] < logs[1]["edit_steps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"edits": datasets.Dataset.from_dict({"source": ["der hund ."]})}, r"no columns \['target'\]"),
    ],
)
def test_bad_input(tiny_model, tiny_tokenizer, tiny_edits, change, message):
    with pytest.raises(EditableValueError, match=message):
        mine_prefixes(tiny_model, tiny_tokenizer, **{"edits": tiny_edits, **change})


def test_the_command(tiny_model, tiny_tokenizer, tiny_edits, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    tiny_edits.save_to_disk(tmp_path / "edits")
    given = ["--model_name_or_path", str(tmp_path / "model"), "--edits_dir", str(tmp_path / "edits")]
    assert command.main([*given, "--output_dir", str(tmp_path / "new"), "--num_beams", "2"]) == 0
    expected = mine_prefixes(tiny_model, tiny_tokenizer, tiny_edits, num_beams=2)
    assert datasets.load_from_disk(tmp_path / "new").to_list() == expected.to_list()
