"""Nobody who uses a model sees the edits that other threads try on it, or waits for them."""

import copy
import threading

import pytest
import torch
from datasets import Dataset
from transformers import MarianMTModel

from hf_editable import EditableMixin, TranslationEditor, evaluate_edits
from hf_editable.evaluation import edit_sequence, measure_generality
from hf_editable.operations import Correction, EditStore, ImpactGate, apply_corrections
from hf_editable.patches.application import applied, working_copy


FEW = {"max_steps": 3, "num_alternatives": 2}
LONGEST = 60  # seconds that another thread is waited for, before it counts as stuck


@pytest.fixture
def editor(tiny_model, tiny_tokenizer):
    tiny_model.train()  # nor does anybody see evaluation mode
    return TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2, **FEW)


def vanilla(model):
    """The same model for who does not know that it can be edited: its tensors, and none of its methods."""
    view = copy.copy(model)
    view.__class__ = MarianMTModel
    return view


class Others:
    """Another thread that uses the model; `look` has it do so now, and waits for it."""

    def __init__(self, editor, sources):
        self._editor, self._sources = editor, sources
        self._batch = editor.tokenizer(sources[0], return_tensors="pt")
        self._expected, self.looks = None, 0
        self._expected = self._see()

    def _see(self):
        model, mode = self._editor.model, [module.training for module in self._editor.model.modules()]
        plain = vanilla(working_copy(model, ()))  # in evaluation mode, with the weights that the model has now
        with torch.no_grad():
            logits = plain(**self._batch, decoder_input_ids=self._batch.input_ids).logits
            said = plain.generate(**self._batch, num_beams=2)
        return [*self._editor.translate(self._sources), mode, logits.tolist(), said.tolist(), applied(model)]

    def look(self):
        found = []
        thread = threading.Thread(target=lambda: found.append(self._see()), daemon=True)
        thread.start()
        thread.join(LONGEST)
        assert found, "it waited for the edit"
        assert found[0] == self._expected
        self.looks += 1


def correct(editor, pairs, folder):
    editor.edit(pairs[0]["source"], pairs[5]["target"], max_rounds=2)
    wanted = [[pair[name] for pair in pairs[1:3]] for name in ("source", "target")]
    editor.edit_jointly(*wanted, [[pairs[4]["target"]]] * 2, max_rounds=1)


def weigh(editor, pairs, folder):
    patch = editor.edit(pairs[0]["source"], pairs[5]["target"], max_rounds=1).patch
    gate = ImpactGate(editor, pairs[8:12])
    for _ in range(3):  # with a record of the search from the second time on
        gate.measure(patch, [Correction(pairs[1]["source"], pairs[1]["target"])])


def revert(editor, pairs, folder):
    store = EditStore.create(folder / "store", editor.model)
    made = editor.on_copy()
    for pair in pairs[:2]:
        result = made.edit(pair["source"], pair["target"], max_rounds=1)
        store.add(result)
        result.patch.apply(made.model)
    store.revert(store.edits[0].id, editor, allow_lost=True)


def apply_list(editor, pairs, folder):
    store = EditStore.create(folder / "store", editor.model)
    wanted = [Correction(pair["source"], pair["target"]) for pair in pairs[:2]]
    gate = ImpactGate(editor, pairs[8:10], max_lost=None)
    apply_corrections(editor, wanted, store, folder / "list", gate=gate, save_model=False, max_rounds=1)


def measure(editor, pairs, folder):
    rows = [{**pairs[place], "alternatives": [pairs[place + 5]["target"]]} for place in (0, 1)]
    data = Dataset.from_list(pairs[:3])
    for evaluate in (evaluate_edits, edit_sequence, measure_generality):
        evaluate(editor.model, editor.tokenizer, Dataset.from_list(rows), data, num_beams=2, **FEW)


@pytest.mark.parametrize("work", [correct, weigh, revert, apply_list, measure], ids=lambda work: work.__name__)
def test_other_threads_have_the_model_as_it_is(editor, tiny_pairs, tmp_path, monkeypatch, work):
    others, generate, edited = Others(editor, [tiny_pairs[0]["source"]]), EditableMixin.generate, []

    def looked_at(self, *args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            edited.append(any(not torch.equal(*pair) for pair in zip(self.parameters(), before, strict=True)))
            if edited[-1] and sum(edited) % 4 == 1:  # each look takes as long as a search
                others.look()
        return generate(self, *args, **kwargs)

    before = [tensor.clone() for tensor in editor.model.parameters()]
    monkeypatch.setattr(EditableMixin, "generate", looked_at)
    work(editor, tiny_pairs, tmp_path)
    assert others.looks == (sum(edited) + 3) // 4 > 0


def test_threads_that_edit_one_model_at_once_each_get_the_edit_that_they_would_get_alone(
    editor, tiny_pairs, monkeypatch
):
    wanted = [(tiny_pairs[place]["source"], tiny_pairs[place + 5]["target"]) for place in range(3)]
    alone = [editor.edit(*each, max_rounds=2).patch.fingerprint() for each in wanted]
    generate, started = EditableMixin.generate, threading.Barrier(len(wanted))

    def together(self, *args, **kwargs):
        if not getattr(self, "is_waited_for", False):
            self.is_waited_for = True
            started.wait(LONGEST)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(EditableMixin, "generate", together)
    found = {}
    threads = [
        threading.Thread(target=lambda each=each: found.update({each: editor.edit(*each, max_rounds=2)}), daemon=True)
        for each in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST)
    assert [found[each].patch.fingerprint() for each in wanted] == alone


def test_an_edit_is_of_the_model_as_it_was_when_it_began(editor, tiny_pairs, monkeypatch):
    """Patches that are put in or taken out meanwhile do not get into it."""
    source, target = tiny_pairs[0]["source"], tiny_pairs[5]["target"]
    alone = editor.edit(source, target, max_rounds=2).patch
    other = editor.edit(tiny_pairs[1]["source"], tiny_pairs[6]["target"], max_rounds=1).patch
    generate = EditableMixin.generate

    def changing(self, *args, **kwargs):
        other.apply(editor.model)
        try:
            return generate(self, *args, **kwargs)
        finally:
            other.revert(editor.model)

    monkeypatch.setattr(EditableMixin, "generate", changing)
    assert editor.edit(source, target, max_rounds=2).patch.fingerprint() == alone.fingerprint()


def test_a_copy_and_its_model_have_their_own_hooks_and_tied_tensors(tiny_model):
    calls = []
    tied = tiny_model.lm_head.weight
    twin = working_copy(
        tiny_model, [name for name, each in tiny_model.named_parameters(remove_duplicate=False) if each is tied]
    )
    handle = twin.get_decoder().register_forward_hook(lambda *given: calls.append(given))
    ids = torch.tensor([[5, 2]])
    with torch.no_grad():
        expected = twin(input_ids=ids, decoder_input_ids=ids).logits
        assert torch.equal(tiny_model(input_ids=ids, decoder_input_ids=ids).logits, expected) and len(calls) == 1
    handle.remove()
    with torch.no_grad():
        twin.get_input_embeddings().weight.add_(1.0)
    assert torch.allclose(twin.lm_head.weight - 1.0, tied, atol=1e-6)
    assert tiny_model.lm_head.weight is tied is tiny_model.get_input_embeddings().weight
