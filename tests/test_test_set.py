"""A test set's translations before any edit, and whether a record of the search may stand for generate."""

import pytest

from hf_editable import DataCollatorForEditableSeq2Seq
from hf_editable.decoding.generation import frozen
from hf_editable.decoding.recorded import RecordedDecoding
from hf_editable.evaluation import test_set
from hf_editable.evaluation.test_set import EncodedTestSet
from hf_editable.tail.decoder_tail import Tail


LIMITS = {"num_beams": 3, "max_new_tokens": 8}


@pytest.fixture
def encode(tiny_model, tiny_tokenizer, tiny_pairs):
    """Makes a test set of ten pairs, with or without their translations."""
    tail = Tail(tiny_model, tiny_model.edit_config)
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    with frozen(tiny_model):
        yield lambda said=None: EncodedTestSet(tiny_model, tail, collator, tiny_pairs[:10], 4, said)


@pytest.fixture
def said(encode, tiny_model):
    """What the model says, by generate."""
    return encode().translate(tiny_model, **LIMITS)


@pytest.fixture
def generated(said, monkeypatch):
    """How many sentences generate has decoded, call by call; a record's own calls do not count."""
    counts = []

    def counted(model, batches, *args, search=test_set.beam_search):
        counts.append(sum(len(batch.indices) for batch in batches))
        return search(model, batches, *args)

    monkeypatch.setattr(test_set, "beam_search", counted)
    return counts


def test_what_generate_has_said_is_not_decoded_again(encode, said, generated):
    encoded = encode(said)
    assert encoded.record(**LIMITS, max_bytes=10**9) == said == encoded.retranslate()
    assert encoded.describe_record()["sentences"] == 10 and generated == []


def test_what_was_said_in_other_batches_may_be_rounded_otherwise(encode, said, generated):
    encoded = encode([*said[:3], "the the the", *said[4:]])
    assert encoded.record(**LIMITS, max_bytes=10**9) == said
    assert encoded.describe_record() is not None and generated == [10]


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": 10**9, "num_beams": 1}])
def test_without_a_record_all_is_decoded_in_the_batches_of_later_edits(encode, said, generated, tiny_model, options):
    options = {**LIMITS, **options}
    encoded = encode([f"{text} and so on" * (number % 3) for number, text in enumerate(said)])
    before = encoded.record(**options)
    assert before == encode().translate(tiny_model, options["num_beams"], options["max_new_tokens"])
    assert encoded.describe_record() is None and generated == [10, 10]
    assert encoded.retranslate() == before


def test_a_record_that_gives_other_translations_is_not_used(encode, said, monkeypatch):
    translate = RecordedDecoding.translate
    monkeypatch.setattr(RecordedDecoding, "translate", lambda self: translate(self) | {7: [5, 6], 2: [5, 6]})
    warnings = []
    monkeypatch.setattr(test_set.logger, "warning", warnings.append)
    encoded = encode(said)
    assert encoded.record(**LIMITS, max_bytes=10**9) == said == encoded.retranslate()
    assert encoded.describe_record() is None
    assert len(warnings) == 1 and "gives 2 of 10 translations otherwise than generate" in warnings[0]
