"""The joint BPE tokenizer: plain and Moses-tokenized text in, plain text out."""

import pytest
from transformers import AutoTokenizer

from hf_editable.data import encoding_agreement, generate_corpus, moses, train_tokenizer
from hf_editable.errors import EditableValueError


SENTENCES = [
    ("en", "i don't know, mr. smith: 5,300 of them!"),
    ("en", "the u.s. (and the u.k.) won't pay $50 or 10% of it."),
    ("en", 'he said: "it\'s the boys\' house", and "we\'ll see".'),
    ("en", "they call it 'free speech' in 1990's terms..."),
    ("en", "a well-known co-author; o'brien's 2.5 million, i.e. more?"),
    ("de", 'sie fragte: "wer ruft dr. müller am 5. mai an?" niemand.'),
    ("de", "er kam z.b. um 12.30 uhr (zu spät), bzw. gar nicht."),
    ("de", "das kostet 3,50 € – oder 4 €; öl- und gaspreise steigen. also?"),
]


@pytest.fixture(scope="module")
def tokenizer():
    corpus = generate_corpus(300, 1, 1)["train"]
    tokenized = [moses.tokenize(text, lang) for lang, text in SENTENCES]
    return train_tokenizer([*corpus["source"], *corpus["target"], *tokenized * 3], vocab_size=600)


@pytest.mark.parametrize("lang, text", SENTENCES)
def test_plain_and_moses_text_get_the_same_ids_and_decode_to_plain(tokenizer, lang, text):
    tokens = moses.tokenize(text, lang)
    assert tokens != text
    assert tokenizer.tokenize(text) == tokenizer.tokenize(tokens)
    assert tokenizer.decode(tokenizer(tokens)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("lang, text", SENTENCES)
def test_words_are_those_of_moses(tokenizer, lang, text):
    words = [word for word, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    # In lowercased text a period before a word is taken for the end of a sentence, where Moses keeps it attached.
    assert " ".join(words) == moses.tokenize(text, lang).replace("steigen.", "steigen .")


def test_quotation_marks_open_and_close_in_turn(tokenizer):
    text = '"eins" und "zwei" und "drei", sagt er: "vier"'
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_agreement_counts_sentences(tokenizer):
    plain = ["er ist alt.", "das buch", 'ein "hund"', "sie"]
    assert encoding_agreement(tokenizer, plain, ["er ist alt .", "das buch", 'ein " hund "', "sie er"]) == 0.75


def test_special_tokens_and_labels(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for tok in (tokenizer, loaded):
        assert [tok.bos_token_id, tok.pad_token_id, tok.eos_token_id, tok.unk_token_id] == [0, 1, 2, 3]
        assert tok.model_max_length == 512
        assert tok("Das Buch")["input_ids"] == tok(text_target="das buch")["input_ids"]
        assert tok("Das Buch")["input_ids"][-1] == tok.eos_token_id
        batch = tok(["Er schläft.", "Wo ist das alte Buch?"], padding=True)["input_ids"]
        assert tok.batch_decode(batch, skip_special_tokens=True) == ["er schläft.", "wo ist das alte buch?"]
    assert loaded("ein Ärger") == tokenizer("ein Ärger")


def test_incomplete_and_empty_outputs_decode(tokenizer):
    ids = tokenizer("der regenschirm, bitte")["input_ids"]
    decoded = [tokenizer.decode(ids[:end], skip_special_tokens=True) for end in range(len(ids) + 1)]
    assert decoded[0] == "" and decoded[-1] == "der regenschirm, bitte"
    assert all("der regenschirm, bitte".startswith(text) for text in decoded)


def test_case_is_kept_on_request():
    tokenizer = train_tokenizer(["Der Hund bellt ."], vocab_size=60, lowercase=False)
    assert tokenizer.decode(tokenizer("Der Hund bellt.")["input_ids"], skip_special_tokens=True) == "Der Hund bellt."


def test_composed_and_decomposed_umlauts_agree(tokenizer):
    assert tokenizer("schla\u0308ft")["input_ids"] == tokenizer("schläft")["input_ids"]


def test_vocabulary_too_small():
    with pytest.raises(EditableValueError, match="vocab_size is 4; it must exceed 4"):
        train_tokenizer(["a"], vocab_size=4)


def test_no_text():
    with pytest.raises(EditableValueError, match="no text to learn"):
        train_tokenizer([])
