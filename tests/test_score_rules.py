"""Generation settings that forbid tokens or move scores: edits are ranked as beam search ranks, or refused before."""

import re

import datasets
import families
import pytest
import torch
from transformers import WatermarkingConfig

from hf_editable import AutoEditableModelForSeq2SeqLM, EditableValueError, EditConfig, TranslationEditor, mine_edits
from hf_editable.decoding.encoded_sources import EncodedSources
from hf_editable.decoding.score_rules import SayableTargets
from hf_editable.decoding.translate import translate_texts
from hf_editable.editors.problems.constraint import constraint_value
from hf_editable.operations import EditStore
from hf_editable.operations.bulk.apply_corrections import apply_corrections
from hf_editable.operations.corrections.correction_list import Correction


SOURCE = torch.tensor([[5, 9, 17, 9, 30, 2]])
# What each of these does to scores, alone and together with what only forbids.
MOVING = [
    {"renormalize_logits": True, "bad_words_ids": [[1], [7], [11]]},
    {"renormalize_logits": True, "suppress_tokens": [3, 4, 5], "bad_words_ids": [[2], [6]]},
    {"renormalize_logits": True, "no_repeat_ngram_size": 2},
    {"renormalize_logits": True, "bad_words_ids": [[7, 8], [9]], "min_length": 4},
    {"repetition_penalty": 1.4},
    {"encoder_repetition_penalty": 1.4},
    {"sequence_bias": [[[8], -2.0], [[9, 10], 3.0]]},
    {"exponential_decay_length_penalty": (2, 1.3)},
    {"watermarking_config": WatermarkingConfig(bias=1.5, seeding_scheme="lefthash")},
    {"forced_eos_token_id": 2, "max_length": 6},
    {"repetition_penalty": 1.4, "forced_bos_token_id": 7, "renormalize_logits": True},
    {"no_repeat_ngram_size": 1, "bad_words_ids": [[7]]},  # forbid, and move nothing
]


def editable(family="marian", **settings):
    """A model that ends its translations now and then."""
    model = families.build(family).double()
    if family == "marian":
        model.final_logits_bias[0, 2] = 4.0
    model = AutoEditableModelForSeq2SeqLM.from_model(model, EditConfig(learning_rate=0.01)).eval()
    model.generation_config.update(max_length=10)
    model.generation_config.update(**settings)
    return model


def best(model, source=SOURCE, count=6):
    """The beam of plain `generate`, as labels, and its scores."""
    found = model.generate(
        input_ids=source, num_beams=count, num_return_sequences=count, do_sample=False,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    labels = found.sequences[:, 1:]
    after = (labels == 2).cumsum(-1) - (labels == 2).int() > 0
    labels = labels.masked_fill(after, -100)
    return labels, found.sequences_scores.double()


def edit_of(labels):
    """What makes the last of the translations outrank the others."""
    return {
        "input_ids": SOURCE,
        "attention_mask": None,
        "labels": labels[-1:],
        "alternative_labels": labels[None, :-1],
    }


@pytest.mark.parametrize("family", ["marian", "t5"])
@pytest.mark.parametrize("settings", MOVING, ids=str)
def test_the_constraint_is_over_the_scores_of_beam_search(family, settings):
    model = editable(family, **settings)
    labels, scores = best(model)
    expected = (scores[0] - scores[-1]).item()
    assert expected > 1e-3  # or there is nothing to tell apart
    edit = edit_of(labels)
    problem = model.joint_problem([edit])
    given = {name: tensor.detach().requires_grad_() for name, tensor in problem.parameters.items()}
    loss = problem(given)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert constraint_value(model, [edit], model.edit_length_penalty()) == pytest.approx(loss.item(), abs=1e-9)
    # The gradient, along a random line, on which no other alternative comes to be the strongest.
    problem = model.joint_problem([edit_of(labels[[0, -1]])])
    loss = problem(given)
    gradients = torch.autograd.grad(loss, list(given.values()), materialize_grads=True)
    torch.manual_seed(1)
    line = [torch.randn_like(tensor) for tensor in given.values()]
    slope = sum((gradient * step).sum() for gradient, step in zip(gradients, line, strict=True)).item()
    ends = []
    for size in (1e-4, -1e-4):
        moved = {name: tensor.detach() + size * step for (name, tensor), step in zip(given.items(), line, strict=True)}
        ends.append(problem(moved).item())
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-2, abs=1e-4)


FORBIDDING = {
    "bad_words_ids": [[15]],
    "suppress_tokens": [15],
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "min_length": 9,
    "min_new_tokens": 9,
    "begin_suppress_tokens": [14],
    "forced_bos_token_id": 8,
    "max_length": 4,
}
TARGET = [14, 15, 14, 15, 2]


@pytest.mark.parametrize("name", FORBIDDING)
def test_what_can_never_be_said_is_told_with_the_setting(name):
    model = editable()
    source = [14, 15, 2]
    SayableTargets(model).check(TARGET, "so", source)
    setattr(model.generation_config, name, FORBIDDING[name])
    reason = f"{name}={FORBIDDING[name]!r}" if name != "max_length" else "5 tokens, and the model's"
    with pytest.raises(EditableValueError, match=f"'so': .*{re.escape(reason)}"):
        SayableTargets(model).check(TARGET, "so", source)
    # It is so: with nothing else to say, generate does not say it.
    with torch.no_grad():
        model.final_logits_bias[0] = -50.0
        model.final_logits_bias[0, [14, 15, 2]] = 0.0
    labels, _ = best(model, torch.tensor([source]), count=12)
    assert TARGET not in [[token for token in row.tolist() if token >= 0] for row in labels]


def test_a_forbidden_correction_is_refused_before_the_work(tiny_model, tiny_tokenizer, tiny_pairs, monkeypatch):
    editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)
    word = tiny_tokenizer.convert_tokens_to_ids("dog")
    tiny_model.generation_config.bad_words_ids = [[word]]
    monkeypatch.setattr(type(tiny_model), "edit_jointly", lambda *_, **__: pytest.fail("It is edited."))
    monkeypatch.setattr(TranslationEditor, "_best", lambda *_, **__: pytest.fail("It is translated."))
    with pytest.raises(EditableValueError, match=rf"can never say the target 'the dog .*bad_words_ids=\[\[{word}\]\]"):
        editor.edit(tiny_pairs[0]["source"], "the dog sees the ball .")


@pytest.mark.parametrize("joint", [False, True])
def test_in_a_list_only_a_forbidden_correction_fails(joint, tiny_model, tiny_tokenizer, tiny_pairs, tmp_path):
    editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2, max_steps=1, num_alternatives=2)
    tiny_model.generation_config.suppress_tokens = [tiny_tokenizer.convert_tokens_to_ids("dog")]
    rows = [Correction(tiny_pairs[place]["source"], tiny_pairs[place]["target"]) for place in (0, 8)]
    options = {"joint": joint, "save_model": False, "max_rounds": 1}
    report = apply_corrections(
        editor, rows, EditStore.create(tmp_path / "store", tiny_model), tmp_path / "out", **options
    )
    (forbidden, other) = report.rows
    assert forbidden["outcome"] == "failed" and "suppress_tokens=[" in forbidden["reasons"][0]
    assert "suppress_tokens" not in str(other["reasons"])


def test_mining_leaves_out_references_that_can_never_be_said(tiny_model, tiny_tokenizer, tiny_pairs):
    word = tiny_tokenizer.convert_tokens_to_ids("dog")
    rows = datasets.Dataset.from_list(tiny_pairs)
    options = {"num_alternatives": 3, "targets": "references"}
    edits = mine_edits(tiny_model, tiny_tokenizer, rows, **options)
    tiny_model.generation_config.bad_words_ids = [[word]]
    without = mine_edits(tiny_model, tiny_tokenizer, rows, **options)
    assert any("dog" in target for target in edits["target"])
    assert without["target"] == [target for target in edits["target"] if "dog" not in target]
    assert not any("dog" in text for texts in without["alternatives"] for text in texts)


def test_a_target_without_a_score_is_refused_by_the_model_too():
    model = editable(renormalize_logits=True, bad_words_ids=[[15]])
    edit = edit_of(torch.tensor([[14, 16, 2], [14, 15, 2]]))
    with pytest.raises(EditableValueError, match=r"can never say the target .*bad_words_ids=\[\[15\]\]"):
        model.edit(**edit)


@pytest.mark.parametrize(
    "settings", [{"encoder_no_repeat_ngram_size": 2}, {"encoder_repetition_penalty": 3.0}], ids=str
)
def test_settings_that_look_at_the_source_are_followed(settings, tiny_model, tiny_tokenizer, tiny_pairs):
    def translated():
        return translate_texts(tiny_model, tiny_tokenizer, sources, 3, 4, 15)

    # Sources in the model's own words, so that there is something to forbid.
    sources = [pair["source"] for pair in tiny_pairs[:5]]
    sources = [" ".join(text.split()[: 4 + index]) for index, text in enumerate(translated())]
    tiny_model.generation_config.update(**settings)
    expected = []
    for source in sources:
        given = torch.tensor([tiny_tokenizer(source).input_ids])
        ids = tiny_model.generate(input_ids=given, num_beams=3, do_sample=False)
        expected.append(tiny_tokenizer.decode(ids[0], skip_special_tokens=True))
    assert translated() == expected
    tiny_model.generation_config.update(**dict.fromkeys(settings))
    assert translated() != expected


def test_guidance_is_refused_by_name():
    model = editable(guidance_scale=1.5)
    sources = EncodedSources([0], torch.zeros(1, 2, 16).double(), torch.ones(1, 2).long())
    with pytest.raises(EditableValueError, match="guidance_scale=1.5"):
        sources.generate(model, 4, num_beams=2)
