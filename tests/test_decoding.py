"""Beam search in parts is the beam search of generate."""

import pytest
import torch
from transformers import DynamicCache

from hf_editable.decoding.encoded_sources import EncodedSources, encode_sources
from hf_editable.decoding.generation import beam_search, frozen
from hf_editable.models.families import encoder_output


@pytest.fixture
def sources(tiny_model, tiny_tokenizer, tiny_pairs):
    # With this some translations end soon, others never.
    tiny_model.generation_config.max_length = 40
    with torch.no_grad():
        tiny_model.final_logits_bias[0, 2] = 0.75
    encoded = [
        tiny_tokenizer(" ".join(pair["source"].split()[: 2 + i % 5])).input_ids for i, pair in enumerate(tiny_pairs)
    ]
    with frozen(tiny_model):
        return encode_sources(tiny_model, tiny_tokenizer, encoded, list(range(len(encoded))))


@pytest.fixture
def calls(monkeypatch):
    """The rows and the limit of every search."""
    seen = []
    generate = EncodedSources.generate

    def counted(self, model, max_new_tokens, **options):
        seen.append((len(self.indices), max_new_tokens))
        return generate(self, model, max_new_tokens, **options)

    monkeypatch.setattr(EncodedSources, "generate", counted)
    return seen


def trimmed(ids, pad):
    return [token for token in ids if token != pad]


@pytest.mark.parametrize("expected", [1, 3, 8, 20, 30])
def test_any_expectation_gives_what_generate_gives(tiny_model, tiny_tokenizer, sources, expected, calls):
    with frozen(tiny_model):
        whole = sources.generate(tiny_model, 30, num_beams=3, do_sample=False)
        calls.clear()
        parts = beam_search(tiny_model, [sources], [expected], 3, 30)
    pad = tiny_tokenizer.pad_token_id
    assert sorted(parts) == sources.indices
    for index, ids in enumerate(whole.tolist()):
        assert trimmed(parts[index], pad) == trimmed(ids, pad)
    lengths = [len(trimmed(ids, pad)) for ids in whole.tolist()]
    assert min(lengths) < 10 and max(lengths) > 25  # some end soon, some run on
    assert len(calls) == 1 if expected == 30 else (len(calls) > 1 and calls[0] == (24, expected))


def test_only_what_beams_differ_in_follows_them(tiny_model, sources, monkeypatch):
    moved = []
    plain = DynamicCache.reorder_cache
    monkeypatch.setattr(
        DynamicCache, "reorder_cache", lambda self, beams: (moved.append(self.get_seq_length()), plain(self, beams))
    )
    options = {"num_beams": 4, "num_return_sequences": 4, "do_sample": False}
    with frozen(tiny_model):
        ours = sources.generate(tiny_model, 12, **options)
        steps, length = len(moved), sources.states.shape[1]
        # Keys and values of the translation grow by one a step; those of the source would not.
        assert steps > 3 and moved == list(range(1, steps + 1)) and steps != length
        states = encoder_output(sources.states)
        expected = tiny_model.generate(
            encoder_outputs=states, attention_mask=sources.attention_mask, max_new_tokens=12, **options
        )
    assert ours.tolist() == expected.tolist() and len(moved) > 2 * steps


@pytest.mark.parametrize("setting", [{"early_stopping": "never"}, {"forced_eos_token_id": 2}])
def test_settings_that_look_ahead_are_searched_at_once(tiny_model, sources, setting):
    for name, value in setting.items():
        setattr(tiny_model.generation_config, name, value)
    with frozen(tiny_model):
        whole = sources.generate(tiny_model, 30, num_beams=3, do_sample=False)
        assert list(beam_search(tiny_model, [sources], [3], 3, 30).values()) == whole.tolist()


def test_endless_translations_of_all_batches_are_searched_together(tiny_model, tiny_tokenizer, sources, calls):
    with frozen(tiny_model):
        whole = sources.generate(tiny_model, 30, num_beams=3, do_sample=False)
        # Batches of unlike lengths, as `_joined` pads them.
        order = sorted(range(24), key=lambda row: int(sources.attention_mask[row].sum()))
        parts = [sources.select(order[start : start + 8]) for start in (0, 8, 16)]
        longest = [int(part.attention_mask.sum(1).max()) for part in parts]
        parts = [
            EncodedSources(part.indices, part.states[:, :length], part.attention_mask[:, :length])
            for part, length in zip(parts, longest, strict=True)
        ]
        calls.clear()
        found = beam_search(tiny_model, parts, [20, 20, 20], 3, 30)
    pad = tiny_tokenizer.pad_token_id
    for index, ids in enumerate(whole.tolist()):
        assert trimmed(found[index], pad) == trimmed(ids, pad)
    long = [size for size, limit in calls if limit == 30]
    endless = sum(len(trimmed(ids, pad)) > 20 for ids in whole.tolist())
    assert longest[0] < longest[2] and sum(long) >= endless > 0 and max(long) > 1
