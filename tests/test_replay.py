"""Translations of edited models from a record are those of generate."""

import families
import pytest
import torch

from hf_editable import AutoEditableModelForSeq2SeqLM, EditConfig
from hf_editable.decoding.beam_search import BeamSearch
from hf_editable.decoding.encoded_sources import EncodedSources
from hf_editable.decoding.generation import frozen
from hf_editable.decoding.recorded import record
from hf_editable.decoding.visited_prefixes import VisitedPrefixes
from hf_editable.tail.decoder_tail import Tail


# Their decoder layers need no more than a mask to know which positions a token sees.
RECORDED = (
    "marian", "m2m_100", "mbart", "bart", "pegasus", "pegasus_x", "bigbird_pegasus", "led", "blenderbot",
    "blenderbot-small", "mvp", "plbart", "seamless_m4t", "seamless_m4t_v2", "encoder-decoder",
)  # fmt: skip
LIMITS = {"num_beams": 4, "max_new_tokens": 12}


def editable(family="marian", **edit_options):
    config = families.CONFIGS[family]()
    torch.manual_seed(0)
    model = AutoEditableModelForSeq2SeqLM.from_config(config, EditConfig(**edit_options)).eval()
    model.generation_config.max_length = None
    model.generation_config.encoder_no_repeat_ngram_size = None  # Blenderbot's, with which there is no record
    return model


def encoded(model, rows=9):
    """Sources of different lengths."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, 36, (rows, 9), generator=generator)
    mask = torch.ones_like(input_ids)
    for row in range(rows):
        mask[row, 9 - row % 4 :] = 0
    input_ids[mask == 0] = 1
    with torch.no_grad():
        states = model.get_encoder()(input_ids=input_ids, attention_mask=mask, return_dict=True).last_hidden_state
    return EncodedSources(list(range(rows)), states, mask, input_ids.tolist())


def texts(output, pad=1):
    rows = output.tolist() if isinstance(output, torch.Tensor) else [output[i] for i in sorted(output)]
    return [[token for token in row if token != pad] for row in rows]


def generated(model, sources, **limits):
    limits = {**LIMITS, **limits}
    with frozen(model):
        return texts(sources.generate(model, limits.pop("max_new_tokens"), do_sample=False, **limits))


def recorded(model, sources, max_bytes=10**9, **limits):
    """The record, with the search before any edit in it, if that gives what generate does."""
    expected = generated(model, sources, **limits)
    limits = {**LIMITS, **limits}
    with frozen(model):
        tail = Tail(model, model.edit_config)
        decoding = record(tail, [sources], [limits["max_new_tokens"]], max_bytes=max_bytes, **limits)
        return decoding if decoding is not None and texts(decoding.translate()) == expected else None


def moved(model, scale, seed):
    """The model with its edited layers moved; far enough, all its translations change."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in Tail(model, model.edit_config).parameters.values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def retranslated(decoding, model):
    with frozen(model):
        return texts(decoding.translate())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_translations_after_edits_are_those_of_generate(family):
    model = editable(family)
    sources = encoded(model)
    decoding = recorded(model, sources)
    assert (decoding is not None) == (family in RECORDED)
    if decoding is None:
        return
    before = generated(model, sources)
    changed = 0
    for seed, scale in enumerate((0.01, 0.1, 0.5)):
        moved(model, scale, seed)
        expected = generated(model, sources)
        changed += expected != before
        assert retranslated(decoding, model) == expected
    assert changed


SETTINGS = [
    {"early_stopping": True},
    {"early_stopping": "never"},
    {"early_stopping": "never", "length_penalty": 0.0},
    {"length_penalty": 0.0},
    {"length_penalty": 2.0},
    {"length_penalty": -1.0},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[7], [8], [9, 10]]},
    {"forced_bos_token_id": 5},
    {"forced_eos_token_id": 2},
    {"min_new_tokens": 6},
    {"repetition_penalty": 1.5},
    {"suppress_tokens": [11, 12, 13]},
    {"bad_words_ids": [[1]], "renormalize_logits": True},
    {"sequence_bias": [[[8], 2.0], [[9, 10], -3.0]]},
    {"exponential_decay_length_penalty": (2, 1.5)},
    {"eos_token_id": [2, 6, 9]},
    {"num_beams": 2},
    {"num_beams": 7},
    {"max_new_tokens": 1},
    {"max_new_tokens": 31, "eos_token_id": 39},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_of_generate_is_followed(settings):
    model = editable()
    limits = {name: settings[name] for name in LIMITS if name in settings}
    for name, value in settings.items():
        if name not in LIMITS:
            setattr(model.generation_config, name, value)
    sources = encoded(model)
    decoding = recorded(model, sources, **limits)
    assert decoding is not None
    for seed in range(3):
        moved(model, 0.2, seed)
        assert retranslated(decoding, model) == generated(model, sources, **limits)


@pytest.mark.parametrize("layers", [[-1, -2], -2])
def test_several_and_earlier_layers(layers):
    model = editable(layers_to_transform=layers)
    sources = encoded(model)
    decoding = recorded(model, sources)
    moved(model, 0.2, 0)
    assert retranslated(decoding, model) == generated(model, sources)


def test_what_cannot_be_recorded(monkeypatch):
    assert recorded(editable(layers_to_transform=0), encoded(editable())) is None
    assert recorded(editable(), encoded(editable()), num_beams=1) is None
    looking = editable()
    looking.generation_config.encoder_no_repeat_ngram_size = 3
    assert recorded(looking, encoded(looking)) is None
    model = editable()
    sources = encoded(model)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert recorded(model, sources) is None
    monkeypatch.undo()
    assert recorded(model, sources) is not None
    model = editable().to(torch.bfloat16)
    assert recorded(model, encoded(model)) is None


def test_the_trunk_runs_once_for_a_prefix(monkeypatch):
    model = editable()
    sources = encoded(model)
    decoding = recorded(model, sources)
    runs = []
    step = Tail.trunk_step
    monkeypatch.setattr(Tail, "trunk_step", lambda self, *args: runs.append(len(args[0])) or step(self, *args))
    retranslated(decoding, model)
    assert not runs
    moved(model, 0.2, 0)
    retranslated(decoding, model)
    new = decoding.describe()["prefixes"]
    assert sum(runs) > 0
    runs.clear()
    retranslated(decoding, model)
    assert not runs
    assert decoding.describe()["prefixes"] == new


def test_the_record_stays_below_its_size():
    model = editable()
    sources = encoded(model)
    whole = recorded(model, sources).describe()
    assert whole["sentences"] == 9
    none = recorded(model, sources, max_bytes=100)
    assert none.describe() == {"sentences": 0, "prefixes": 0, "bytes": 0}
    tight = recorded(model, sources, max_bytes=whole["bytes"] + 100)
    for seed in range(3):
        moved(model, 0.3, seed)
        expected = generated(model, sources)
        assert retranslated(none, model) == expected
        assert retranslated(tight, model) == expected
        assert tight.describe()["prefixes"] == whole["prefixes"]  # what edits added is gone
        assert tight.describe()["bytes"] <= whole["bytes"]


def test_what_does_not_fit_of_several_searches_is_decoded_anew(monkeypatch):
    model = editable()
    sources = encoded(model)
    four = 4 * LIMITS["num_beams"] * sources.states.shape[-1]
    monkeypatch.setattr("hf_editable.decoding.recorded._MOST_STATES", four)
    monkeypatch.setattr("hf_editable.decoding.visited_prefixes._MOST_ROWS", 3)
    whole = recorded(model, sources).describe()
    assert whole["sentences"] == 9
    decoding = recorded(model, sources, max_bytes=whole["bytes"] - 1)
    assert 0 < decoding.describe()["sentences"] < 9
    moved(model, 0.3, 0)
    assert retranslated(decoding, model) == generated(model, sources)


def test_logits_in_parts_do_not_limit_a_search(monkeypatch):
    model = editable()
    sources = encoded(model)
    monkeypatch.setattr("hf_editable.tail.exactness._EXACT", {})  # as in a new process
    monkeypatch.setattr("hf_editable.decoding.recorded.MOST_LOGITS", 1)
    assert [len(search.sources.indices) for search in recorded(model, sources)._searches] == [9]


def test_ties_are_left_to_generate():
    model = editable()
    with torch.no_grad():  # two tokens that no score tells apart
        model.get_output_embeddings().weight[20:36] = model.get_output_embeddings().weight[4:20].clone()
        model.final_logits_bias[:, 20:36] = model.final_logits_bias[:, 4:20]
    sources = encoded(model)
    with frozen(model):
        tail = Tail(model, model.edit_config)
        search = BeamSearch(tail, sources, VisitedPrefixes(tail, sources))
        search.translate(**LIMITS)
    assert search.narrow == list(range(9))
    decoding = recorded(model, sources)
    moved(model, 0.2, 0)
    assert retranslated(decoding, model) == generated(model, sources)
