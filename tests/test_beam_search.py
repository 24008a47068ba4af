"""Beams that share what they have in common find what generate finds."""

import logging

import families
import pytest
import torch
import transformers
from test_replay import RECORDED, SETTINGS, editable, encoded, texts
from transformers import LogitsProcessorList, StoppingCriteriaList

import hf_editable
from hf_editable.decoding import trial
from hf_editable.decoding.beam_search import BeamSearch, Embeddings, whole_decoder
from hf_editable.decoding.beams import Selection
from hf_editable.decoding.generation import frozen
from hf_editable.decoding.recorded import record
from hf_editable.models.families import BEAMS_APART
from hf_editable.models.private_names import PRIVATE_NAMES, installed_releases
from hf_editable.tail.decoder_tail import Tail
from hf_editable.tail.prefix_tree import MASKED_FAMILIES


LIMITS = {"num_beams": 6, "num_return_sequences": 6, "max_new_tokens": 12}


def n_best(model, sources, **limits):
    """All translations in the beam by a search whose beams share; `None` where it would not follow generate."""
    with frozen(model):
        tail = whole_decoder(model, sources.select([0, 3]), LIMITS["num_beams"])
        if tail is None:
            return None
        search = BeamSearch(tail, sources, Embeddings(tail, sources))
        return texts(search.translate(**{**LIMITS, **limits}))


def expected(model, sources, **limits):
    limits = {**LIMITS, **limits}
    with frozen(model):
        return texts(sources.generate(model, limits.pop("max_new_tokens"), do_sample=False, **limits))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_all_of_the_beam_is_that_of_generate(family):
    model = editable(family)
    sources = encoded(model)
    found = n_best(model, sources)
    assert (found is not None) == (family in RECORDED and family not in ("led", "mvp", "encoder-decoder"))
    assert found is None or found == expected(model, sources)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_of_generate_is_followed(settings):
    model = editable()
    limits = {name: settings[name] for name in LIMITS if name in settings}
    limits |= {"num_return_sequences": limits["num_beams"]} if "num_beams" in limits else {}
    for name, value in settings.items():
        if name not in LIMITS:
            setattr(model.generation_config, name, value)
    sources = encoded(model)
    assert n_best(model, sources, **limits) == expected(model, sources, **limits)


def test_more_beams_than_the_decoder_has_positions():
    model = editable()
    sources = encoded(model)
    model.generation_config.eos_token_id = 39  # hardly ever likely: translations go on to the limit
    limits = {"num_beams": 32, "num_return_sequences": 20, "max_new_tokens": 31}
    assert n_best(model, sources, **limits) == expected(model, sources, **limits)


def test_free_slots_are_taken_again():
    model = editable()
    model.generation_config.eos_token_id = 39
    sources = encoded(model)
    slots, needed = [], []
    with frozen(model):
        tail = whole_decoder(model, sources, 4)
        step = tail.tail_step

        def counted(*args):
            visible = args[4]
            slots.append(visible.shape[-1])
            needed.append(int((visible == 0).any(2).sum(-1).max()))
            return step(*args)

        tail.tail_step = counted
        BeamSearch(tail, sources, Embeddings(tail, sources)).translate(4, 31)
    assert len(slots) == 31 and slots == [max(needed[: at + 1]) for at in range(31)]


def test_logits_of_some_sources_after_the_other(monkeypatch):
    model = editable()
    sources = encoded(model)
    most = 2 * LIMITS["num_beams"] * model.config.vocab_size
    monkeypatch.setattr("hf_editable.tail.stepping.MOST_LOGITS", most)
    select, sizes = Selection.advance, []

    def noted(self, beams, logits, length):
        parts = list(logits)
        sizes.append([part.numel() for part in parts])
        return select(self, beams, parts, length)

    monkeypatch.setattr(Selection, "advance", noted)
    assert n_best(model, sources) == expected(model, sources)
    assert max(map(max, sizes)) <= most and max(map(len, sizes)) == -(-len(sources.indices) // 2)


def test_narrow_searches_are_given_up(monkeypatch):
    monkeypatch.setattr("hf_editable.decoding.beams.NARROW", 1e9)
    model = editable()
    sources = encoded(model)
    with frozen(model):
        tail = whole_decoder(model, sources, 4)
        search = BeamSearch(tail, sources, Embeddings(tail, sources))
        search.translate(4, 12)
        assert search.narrow == sources.indices
        step, steps = tail.tail_step, []
        tail.tail_step = lambda *args: steps.append(args) or step(*args)
        search.translate(4, 12, skip_narrow=True)
    assert search.narrow == sources.indices and len(steps) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision(dtype):
    model = editable().to(dtype)
    sources = encoded(model)
    found = n_best(model, sources)
    assert found is None if dtype == torch.bfloat16 else found == expected(model, sources)


def test_searches_that_reach_the_limit_are_not_narrow():
    model = editable()
    sources = encoded(model)
    model.generation_config.eos_token_id = 39
    with frozen(model):
        tail = whole_decoder(model, sources, 4)
        search = BeamSearch(tail, sources, Embeddings(tail, sources))
        found = texts(search.translate(4, 12))
    assert search.narrow == [] and {len(ids) for ids in found} == {13}
    assert found == expected(model, sources, num_beams=4, num_return_sequences=1)


def tried(model, sources):
    """The two ways to a fast search: mining's, and that of translations after edits."""
    with frozen(model):
        mined = whole_decoder(model, sources.select([0, 3]), 4)
        tail = Tail(model, model.edit_config)
        return mined, record(tail, [sources], [12], num_beams=4, max_new_tokens=12, max_bytes=10**9)


@pytest.fixture
def messages(caplog, monkeypatch):
    """What was said, by level, as in a new process."""
    monkeypatch.setattr(trial, "_WARNED", set())
    caplog.set_level(logging.INFO, "hf_editable")

    def said(level):
        ours = [each for each in caplog.records if each.name.startswith("hf_editable.")]
        return [each.getMessage() for each in ours if each.levelname == level]

    return said


@pytest.mark.parametrize("family", families.FAMILIES)
def test_families_take_the_fast_search_or_are_known_not_to(family, messages):
    model = editable(family)
    mined, recorded = tried(model, encoded(model))
    assert messages("WARNING") == []
    kind, releases = model.config.model_type, installed_releases()
    assert (kind in BEAMS_APART) == (family not in RECORDED)
    if kind in MASKED_FAMILIES:
        assert mined is not None, f"{kind} is mined slowly with {releases}"
    if family in RECORDED:
        assert recorded is not None, f"{kind} is decoded slowly after edits with {releases}"
    else:
        assert any(BEAMS_APART[kind] in message for message in messages("INFO"))


def test_what_was_not_expected_is_warned_of_once_a_class_with_the_releases(monkeypatch, messages):
    monkeypatch.setattr(BeamSearch, "_logits", lambda *args: 1 / 0)
    model = editable()
    for _ in range(2):
        assert tried(model, encoded(model)) == (None, None)
    (message,) = messages("WARNING")
    assert "EditableMarianMTModel" in message and "ZeroDivisionError" in message and "slower, not wrong" in message
    for package in (hf_editable, torch, transformers):
        assert f"{package.__name__} {package.__version__}" in message
    model = editable("bart")
    tried(model, encoded(model))
    assert len(messages("WARNING")) == 2


def test_other_scores_than_those_of_generate_are_warned_of(monkeypatch, messages):
    scores = Selection._scores
    monkeypatch.setattr(Selection, "_scores", lambda *args: 0.9 * scores(*args))
    model = editable()
    assert tried(model, encoded(model)) == (None, None)
    assert "scores of translations were not those of generate" in messages("WARNING")[0]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["device", "python", "cpu"],
)
def test_memory_that_runs_out_is_not_a_reason(error, monkeypatch, messages):
    def raising(*args):
        raise error

    monkeypatch.setattr(BeamSearch, "_logits", raising)
    model = editable()
    with pytest.raises(type(error)):
        tried(model, encoded(model))
    assert messages("WARNING") == []


def test_reasons_that_are_known_need_no_trial(monkeypatch, messages):
    monkeypatch.setattr(BeamSearch, "translate", None)
    model = editable()
    sources = encoded(model)
    entry = next(entry for entry in PRIVATE_NAMES if "decoding.beams" in entry.used_in)
    monkeypatch.setattr(
        trial, "missing_names", lambda module: (entry,) if module == "hf_editable.decoding.beams" else ()
    )
    assert tried(model, sources) == (None, None)  # of that there was a warning when the module was imported
    assert messages("WARNING") == [] and entry.name in messages("INFO")[0]
    model.set_attn_implementation("flex_attention")
    assert tried(model, sources) == (None, None) and "which others it sees" in messages("INFO")[-2]


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("family", RECORDED)
def test_no_argument_is_called_by_an_old_name(family, messages):
    model = editable(family)
    sources = encoded(model)
    tried(model, sources)
    with frozen(model):
        sources.generate(model, 3, num_beams=3, do_sample=False)
    assert messages("WARNING") == []


def test_what_cannot_share(monkeypatch):
    model = editable()
    sources = encoded(model)
    with frozen(model):
        assert whole_decoder(model, sources, 1) is None
        assert whole_decoder(model, sources, 2) is not None
        monkeypatch.setattr(BeamSearch, "_logits", lambda *args: 1 / 0)
        assert whole_decoder(model, sources, 2) is None


@pytest.mark.parametrize("vocabulary", [100, 640, 1000, 8001])
@pytest.mark.parametrize("beams", [2, 5, 32])
def test_the_best_continuations(vocabulary, beams):
    model = editable()
    generation = model.generation_config
    generation.num_beams, generation._eos_token_tensor = beams, torch.tensor([2])
    generation._pad_token_tensor = torch.tensor(1)
    selection = Selection(model, LogitsProcessorList(), StoppingCriteriaList(), generation)
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(7, beams, vocabulary, generator=generator)
    scores[0, 0, ::2] = -torch.inf
    scores[1, 0, -3:] += 20  # in what no whole block holds
    running = torch.randn(7, beams, generator=generator)
    found, tokens, parents = selection._candidates(scores, running)
    sums = (scores + running[:, :, None]).flatten(1)
    assert found.shape == (7, min(2 * beams + 1, beams * vocabulary))
    assert torch.equal(found, sums.topk(found.shape[1]).values)
    assert torch.equal(sums.gather(1, parents * vocabulary + tokens), found)
