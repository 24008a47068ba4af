"""Edits that `generate` has the last word on."""

import math

import pytest
import torch
from families import build
from tokenizers import normalizers

import plain
from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    EditableValueError,
    EditConfig,
    EditPatch,
    EditResult,
    TranslationEditor,
)
from hf_editable.correction.verification import Verification, VerifiedEdit, _pushing_out, shortened
from hf_editable.editors.problems.translation_problem import JointEditProblem
from hf_editable.evaluation.single_edits import evaluate_edits
from hf_editable.evaluation.study import Study
from hf_editable.tail.decoder_tail import Tail


SOURCE, TARGET = "der hund sieht den ball .", "the dog sees the ball ."


@pytest.fixture
def tiny_model(tiny_model, taught_weights):
    tiny_model.load_state_dict(taught_weights)
    return tiny_model


@pytest.fixture(params=[1, 3], ids=["greedy", "beam 3"])
def editor(request, tiny_model, tiny_tokenizer):
    tiny_model.edit_config = EditConfig(learning_rate=1e-2, max_steps=30, num_alternatives=4)
    return TranslationEditor(tiny_model, tiny_tokenizer, num_beams=request.param)


def generated(model, tokenizer, source, num_beams):
    encoded = tokenizer(source, return_tensors="pt")
    output = model.generate(
        encoded.input_ids, attention_mask=encoded.attention_mask, num_beams=num_beams, do_sample=False
    )
    return tokenizer.decode(output[0], skip_special_tokens=True)


def test_beam_search_says_what_verified_edits_ask_for(editor, tiny_tokenizer, tiny_pairs):
    unverified = 0
    for pair in tiny_pairs[::4]:
        first = editor.edit(pair["source"], pair["target"], max_rounds=1, shrink=False)
        unverified += first.decoded
        assert first.success and first.rounds == 1
        result = editor.edit(pair["source"], pair["target"], max_rounds=60)
        assert result.success and result.decoded and result.translation == pair["target"]
        with editor.model.edited(result.patch):
            assert generated(editor.model, tiny_tokenizer, pair["source"], editor.num_beams) == pair["target"]
    assert unverified < 6  # else there was nothing to go on from


def test_a_result_that_is_not_decoded_says_so(editor, tiny_tokenizer, tiny_pairs):
    for pair in tiny_pairs[::4]:
        result = editor.edit(pair["source"], pair["target"], max_rounds=1)
        with editor.model.edited(result.patch):
            said = generated(editor.model, tiny_tokenizer, pair["source"], editor.num_beams)
        assert result.translation == said and result.decoded == (said == pair["target"])


def test_shrinking_gives_a_smaller_edit_on_the_same_line_that_does_the_same(editor, tiny_tokenizer, tiny_pairs):
    base, shares = dict(editor.model.named_parameters()), []
    for pair in tiny_pairs[::6]:
        source, target = pair["source"], pair["target"]
        whole, shrunk = (editor.edit(source, target, max_rounds=60, shrink=shrink) for shrink in (False, True))
        assert whole.decoded and shrunk.decoded and shrunk.success and shrunk.steps == whole.steps
        assert shrunk.patch.loss_after == shrunk.loss <= 0
        found = set()
        for name, tensor in whole.patch.tensors.items():
            moved, less = tensor - base[name], shrunk.patch.tensors[name] - base[name]
            share = round(16 * (less.norm() / moved.norm()).item()) / 16
            torch.testing.assert_close(less, share * moved, rtol=1e-3, atol=1e-6)
            found.add(share)
        assert len(found) == 1
        shares += found
        with editor.model.edited(shrunk.patch):
            assert generated(editor.model, tiny_tokenizer, source, editor.num_beams) == target
    assert max(shares) <= 1 and min(shares) < 1


class Threshold(Verification):
    """Beam search says something else after any edit whose one tensor is smaller."""

    def __init__(self, least):
        self._model = torch.nn.Module()
        self._model.w, self._model.joint_problem = torch.nn.Parameter(torch.zeros(1)), lambda *given: Line()
        self._overrides, self._references, self._limit, self._least = {}, None, 9, least

    def _inputs(self):
        return []

    def _generate(self, patch, limit):
        return patch.tensors["w"].item()

    def _verified(self, result, rounds, found):
        return VerifiedEdit(result, rounds, ["said"], [found >= self._least])


class Line:
    """A problem that every edit solves."""

    parameters = {"w": torch.zeros(1)}

    def __call__(self, tensors):
        return torch.tensor(-1.0)


@pytest.mark.parametrize(
    ("least", "expected"), [(0.05, 0.0625), (0.3, 0.3125), (0.5, 0.5), (0.9, 0.9375), (0.95, 1.0)]
)
def test_halving_finds_the_smallest_edit(least, expected):
    whole = EditResult(True, 1, -2.0, 1.0, EditPatch({"w": torch.ones(1)}, "base"))
    found = Threshold(least)._shrunk(VerifiedEdit(whole, 1, ["said"], [True])).result
    assert found.patch.tensors["w"].item() == expected


def test_the_patch_is_one_of_the_unedited_model(editor):
    result = editor.edit(SOURCE, TARGET)
    before = {name: tensor.clone() for name, tensor in editor.model.state_dict().items()}
    result.patch.apply(editor.model)
    result.patch.revert(editor.model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in editor.model.state_dict().items())
    assert result.initial_loss == result.patch.loss_before > 0 and result.steps == result.patch.steps


def test_the_model_stays_as_it_was_when_the_search_fails(editor, monkeypatch):
    before = {name: tensor.clone() for name, tensor in editor.model.state_dict().items()}
    calls = []

    def fail(*args, **options):
        calls.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(editor.model), "generate", fail)
    with pytest.raises(KeyboardInterrupt):
        editor.edit(SOURCE, TARGET, alternatives=["the dog ."])
    assert calls and all(torch.equal(tensor, before[name]) for name, tensor in editor.model.state_dict().items())


def test_one_edit_for_several_corrections(editor, tiny_tokenizer, tiny_pairs):
    pairs = tiny_pairs[::9]
    sources, targets = [pair["source"] for pair in pairs], [pair["target"] for pair in pairs]
    result = editor.edit_jointly(sources, targets, max_rounds=60, max_steps=200)
    assert result.success and result.decoded == [True] * len(pairs) and result.translations == targets
    with editor.model.edited(result.patch):
        for source, target in zip(sources, targets, strict=True):
            assert generated(editor.model, tiny_tokenizer, source, editor.num_beams) == target


def test_a_joint_edit_of_one_is_an_edit(editor):
    single, joint = editor.edit(SOURCE, TARGET), editor.edit_jointly([SOURCE], [TARGET])
    assert all(torch.equal(tensor, joint.patch.tensors[name]) for name, tensor in single.patch.tensors.items())
    assert [single.decoded] == joint.decoded and [single.translation] == joint.translations
    assert (single.patch.source, joint.patch.source) == (SOURCE, None)


def test_translations_are_kept(editor, tiny_tokenizer, tiny_pairs):
    sources = [pair["source"] for pair in tiny_pairs if pair["source"] != SOURCE]
    now = dict(zip(sources, (text.strip() for text in editor.translate(sources)), strict=True))
    plain = editor.edit(SOURCE, TARGET, max_rounds=60)
    with editor.model.edited(plain.patch):
        after = dict(zip(sources, editor.translate(sources), strict=True))
    lost = [source for source in sources if after[source].strip() != now[source]][:2]
    assert len(lost) == 2 and plain.lost == []
    keep = [(source, now[source]) for source in lost]
    others = [(SOURCE, "the ball ."), (next(source for source in sources if source not in lost), "not said .")]
    result = editor.edit(SOURCE, TARGET, max_rounds=200, keep=keep + others)
    assert result.decoded and result.lost == [] and result.rounds > 1
    with editor.model.edited(result.patch):
        assert generated(editor.model, tiny_tokenizer, SOURCE, editor.num_beams) == TARGET
        for source, target in keep:
            assert generated(editor.model, tiny_tokenizer, source, editor.num_beams) == target
    hurried = editor.edit(SOURCE, TARGET, max_rounds=1, keep=keep)
    with editor.model.edited(hurried.patch):
        said = editor.translate(lost)
    wrong = [source for source, text in zip(lost, said, strict=True) if text.strip() != now[source]]
    assert hurried.lost == wrong


def test_evaluations_make_the_same_edits(editor, tiny_tokenizer):
    alternatives = ["the ball .", "the man sees the ball ."]
    expected = editor.edit(SOURCE, TARGET, alternatives, max_rounds=60)

    def made(**options):
        options |= {"num_beams": editor.num_beams, "max_rounds": 60}
        study = Study(evaluate_edits, editor.model, tiny_tokenizer, None, options)
        return study.make({"source": SOURCE, "target": TARGET, "alternatives": alternatives}).result

    found = made()
    assert (found.steps, found.loss, found.success) == (expected.steps, expected.loss, True)
    assert all(torch.equal(tensor, expected.patch.tensors[name]) for name, tensor in found.patch.tensors.items())
    assert made(max_steps=1, learning_rate=1e-9).steps == 60


def test_a_joint_loss_is_the_mean_of_what_is_not_met():
    problems = [lambda parameters, value=value: parameters["w"] * value for value in (3.0, -1.0, 2.0)]
    for problem in problems:
        problem.parameters, problem.length_penalty, problem.edits = {}, 1.0, []
        problem.tail = problem.model = problem.references = None
    joint = JointEditProblem(problems)
    parameters = {"w": torch.tensor(2.0, requires_grad=True)}
    loss = joint(parameters)
    assert loss == 5.0 and torch.autograd.grad(loss, parameters["w"])[0] == 2.5
    assert joint({"w": torch.tensor(-1.0)}) == 1.0 and JointEditProblem(problems[1:2])(parameters) == -2.0
    assert math.isnan(joint({"w": torch.tensor(math.nan)}))


BEAM = [[[], []], [[1], [2]], [[3, 4], [1, 5]]]


@pytest.mark.parametrize(
    ("live", "found", "known", "expected"),
    [
        (BEAM, [], [], [[1, 5]]),
        (BEAM, [], [[1, 5]], [[3, 4]]),
        (BEAM, [], [[1, 5], [3, 4]], []),
        ([[[], []], [[4], [2]], [[1, 2], [4, 2]]], [], [], [[2]]),
        (BEAM[:2], [[1, 0], [2, 0]], [], [[2, 0]]),
        (BEAM[:2], [[1, 0], [2, 0]], [[2, 0]], [[1, 0]]),
        (BEAM[:2], [[2, 1, 3, 0]], [], [[2, 1, 3]]),
        (BEAM[:2], [[1, 2, 0]], [], []),
        ([[[]], [[1]], [[1, 2]], [[1, 2, 9]], [[1, 2, 9, 9]]], [[1, 2, 9, 9]], [], [[1, 2, 9]]),
    ],
    ids=["lowest", "next", "all known", "first step", "ended", "next ended", "ended longer", "itself", "at its end"],
)
def test_what_pushes_a_target_out_of_the_beam(live, found, known, expected):
    assert _pushing_out([1, 2, 0], live, found, known) == expected


@pytest.mark.parametrize("family", ["marian", "mbart", "m2m_100", "t5", "fsmt", "prophetnet"])
def test_prefixes_are_scored_as_the_whole_model_scores_them(family):
    config = EditConfig(length_penalty=0.7)
    model = AutoEditableModelForSeq2SeqLM.from_model(build(family), config)
    inputs = torch.tensor([[5, 6, 7, 2]])
    labels, alternatives = torch.tensor([[9, 8, 7, 2]]), torch.tensor([[[9, 9, 2]]])
    if family in ("mbart",):  # their labels end in the token that the decoder starts with
        labels, alternatives = torch.tensor([[9, 8, 7, 2, 3]]), torch.tensor([[[9, 9, 2, 3]]])
    mask = torch.ones_like(inputs)
    for prefix in ([4], [9, 4], [9, 8, 4], [5, 6, 7]):
        problem = model.edit_problem(
            Tail(model, config), inputs, mask, labels, alternatives, torch.tensor([[prefix]]), config=config
        )
        with torch.no_grad():
            terms = problem._terms(problem._log_probs(problem._states, problem.parameters))
        assert len(terms) == 2
        expected = []
        for tokens in (prefix, labels[0, : len(prefix)].tolist()):
            whole = torch.tensor([tokens + labels[0, len(tokens) :].tolist()])
            logits = plain.logits_of(model, dict(model.named_parameters()), inputs, mask, whole)
            scores = plain.token_log_probs(logits, whole)[0, : len(tokens)]
            expected.append(scores.sum() / len(tokens) ** 0.7)
        torch.testing.assert_close(terms[1], expected[0] - expected[1], rtol=1e-4, atol=1e-5)


def test_prefixes_of_the_target_are_no_terms(tiny_model, tiny_batch):
    edit = {name: tiny_batch[f"edit_{name}"][:1] for name in ("input_ids", "labels", "alternative_labels")}
    own = edit["labels"][:, None, :3]
    assert tiny_model.edit(**edit).loss == tiny_model.edit(**edit, prefix_labels=own).loss
    assert tiny_model.edit(**edit).loss == tiny_model.edit(**edit, prefix_labels=torch.full((1, 1, 2), -100)).loss


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [(torch.tensor([[4, 5]]), "one edit has"), (torch.full((1, 1, 30), 4), "has 30 tokens, the target 7")],
)
def test_prefixes_that_cannot_be(tiny_model, tiny_batch, prefixes, message):
    edit = {name: tiny_batch[f"edit_{name}"][:1] for name in ("input_ids", "labels", "alternative_labels")}
    with pytest.raises(EditableValueError, match=message):
        tiny_model.edit(**edit, prefix_labels=prefixes)


def test_the_tokenizer_must_be_able_to_write_the_target(tiny_model, tiny_tokenizer):
    tiny_tokenizer = type(tiny_tokenizer)(
        tokenizer_object=tiny_tokenizer.backend_tokenizer, **_special(tiny_tokenizer)
    )
    tiny_tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    try:
        editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)
        with pytest.raises(EditableValueError, match="writes it 'the dog .'. Give it like that"):
            editor.edit(SOURCE, "The dog .")
    finally:
        tiny_tokenizer.backend_tokenizer.normalizer = None


def _special(tokenizer):
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "model_max_length", "clean_up_tokenization_spaces")
    return {name: getattr(tokenizer, name) for name in names}


def test_searches_are_cut_short_but_for_the_last(editor, tiny_tokenizer, monkeypatch):
    limits, generate = [], type(editor.model).generate

    def watched(model, *inputs, **options):
        limits.append(options.get("max_new_tokens"))
        return generate(model, *inputs, **options)

    editor.model.generation_config.max_length = 32
    monkeypatch.setattr(type(editor.model), "generate", watched)
    result = editor.edit(SOURCE, TARGET, ["the ball ."], max_rounds=60)
    assert result.decoded and limits[0] == 22 and 31 in limits  # twice the target's seven tokens, and eight
    limits.clear()
    result = editor.edit(SOURCE, TARGET, ["the ball ."], max_rounds=1)
    with editor.model.edited(result.patch):
        assert result.translation == generated(editor.model, tiny_tokenizer, SOURCE, editor.num_beams)
    editor.model.generation_config.forced_eos_token_id = 2  # what a search finds then depends on its limit
    limits.clear()
    editor.edit(SOURCE, TARGET, ["the ball ."], max_rounds=1)
    assert set(limits) == {31}


def test_endless_alternatives_are_cut(make_tiny_model, tiny_tokenizer):
    tiny_model = make_tiny_model()
    tiny_model.generation_config.max_length = 33  # with its end token, one more than the tokenizer takes
    editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)
    said = editor.translate([SOURCE])[0]
    assert len(said.split()) > 31
    result = editor.edit(SOURCE, TARGET, max_rounds=2)
    assert result.success and result.patch.loss_before > 0
    with pytest.raises(EditableValueError, match="alternative .* tokens long; 32 are allowed"):
        editor.collator.edit_inputs({"source": SOURCE, "target": TARGET, "alternatives": [said]})
    assert shortened(editor.collator, [said, "the dog ."]) == [" ".join(said.split()[:30]), "the dog ."]


def test_lists_of_different_lengths(tiny_model, tiny_tokenizer):
    editor = TranslationEditor(tiny_model, tiny_tokenizer)
    with pytest.raises(EditableValueError, match="2 sources, 1 targets and 2 lists"):
        editor.edit_jointly([SOURCE, SOURCE], [TARGET])
    with pytest.raises(EditableValueError, match="0 sources, 0 targets"):
        editor.edit_jointly([], [])
    with pytest.raises(EditableValueError, match="give at least one"):
        tiny_model.edit_jointly([])


def test_collated_prefixes(tiny_model, tiny_tokenizer, tiny_edits):
    from hf_editable import DataCollatorForEditableSeq2Seq

    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    rows = [{**tiny_edits[0], "prefixes": [[4, 5], [6]]}, {**tiny_edits[1], "prefixes": None}]
    found = collator.collate_edits(rows)["edit_prefix_labels"]
    assert found.tolist() == [[[4, 5], [6, -100]], [[-100, -100], [-100, -100]]]
    assert "edit_prefix_labels" not in collator.collate_edits([tiny_edits[0]])
