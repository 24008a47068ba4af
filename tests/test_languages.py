"""Multilingual models: the languages of tokenizer and generation, and edits of one direction."""

import families
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MBart50Tokenizer, MBartTokenizer, NllbTokenizer, SeamlessM4TTokenizer

from hf_editable import (
    AutoEditableModelForSeq2SeqLM,
    DataCollatorForEditableSeq2Seq,
    EditableTypeError,
    EditableValueError,
    EditConfig,
    TranslationEditor,
    set_languages,
)
from hf_editable.models.families import decoder_inputs


PIECES = ["▁der", "▁hund", "▁rennt", "▁the", "▁dog", "▁runs", "▁walks"]
SCORED = [(piece, -1.0) for piece in ["<s>", "<pad>", "</s>", "<unk>", *PIECES]]
LETTERS = {piece: n for n, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"])}


def tokenizer_of(family):
    if family == "m2m_100":  # NLLB
        return NllbTokenizer(vocab=LETTERS, merges=[])
    if family == "seamless_m4t":
        codes = {code: len(LETTERS) + n for n, code in enumerate(["__deu__", "__eng__"])}
        return SeamlessM4TTokenizer(vocab={**LETTERS, **codes}, merges=[], src_lang="deu", tgt_lang="eng")
    if family == "mbart-50":
        return MBart50Tokenizer(vocab=SCORED)
    return MBartTokenizer(vocab=SCORED)


CODES = {
    "m2m_100": ("deu_Latn", "eng_Latn"),
    "mbart": ("de_DE", "en_XX"),
    "mbart-50": ("de_DE", "en_XX"),
    "seamless_m4t": ("deu", "eng"),
}


def model_of(family, tokenizer):
    config = families.CONFIGS[family.split("-")[0]]()
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config.decoder_start_token_id = tokenizer.eos_token_id
    torch.manual_seed(0)
    model = AutoEditableModelForSeq2SeqLM.from_model(
        AutoModelForSeq2SeqLM.from_config(config).eval(), EditConfig(learning_rate=0.01, max_steps=50)
    )
    model.generation_config.max_length = 20
    return model


def code_of(family, tokenizer):
    return tokenizer.convert_tokens_to_ids("__eng__" if family == "seamless_m4t" else CODES[family][1])


@pytest.mark.parametrize("family", CODES)
def test_both_sides_are_set(family):
    tokenizer = tokenizer_of(family)
    model = model_of(family, tokenizer)
    set_languages(model, tokenizer, *CODES[family])
    code = code_of(family, tokenizer)
    setting = "decoder_start_token_id" if family == "mbart" else "forced_bos_token_id"
    assert getattr(model.generation_config, setting) == code != tokenizer.unk_token_id
    source = tokenizer("der hund").input_ids
    output = model.generate(torch.tensor([source]), num_beams=2, do_sample=False)[0].tolist()
    assert code in output[:2]
    labels = DataCollatorForEditableSeq2Seq(tokenizer, model).encode("target", ["the dog runs"])[0]
    assert code in (labels[0], labels[-1]) and labels.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("family", CODES)
def test_an_edit_of_one_direction(family):
    tokenizer = tokenizer_of(family)
    model = model_of(family, tokenizer)
    set_languages(model, tokenizer, *CODES[family])
    editor = TranslationEditor(model, tokenizer, num_beams=2)
    sentences = ("the dog walks", "the dog runs")
    results = [editor.edit("der hund rennt", sentence, alternatives=sentences, max_rounds=1) for sentence in sentences]
    assert all(result.success for result in results) and sum(result.steps for result in results) > 0


def test_a_target_in_another_language_than_the_model_says_is_refused():
    tokenizer = tokenizer_of("m2m_100")
    model = model_of("m2m_100", tokenizer)
    set_languages(model, tokenizer, *CODES["m2m_100"])
    tokenizer.tgt_lang = "fra_Latn"
    with pytest.raises(EditableValueError, match=r"as its first token, but forced_bos_token_id=.*set_languages"):
        TranslationEditor(model, tokenizer).edit("der hund", "the dog", alternatives=["the dog runs"])
    tokenizer = tokenizer_of("mbart")
    model = model_of("mbart", tokenizer)
    set_languages(model, tokenizer, "de_DE", "en_XX")
    tokenizer.tgt_lang = "fr_XX"
    with pytest.raises(EditableValueError, match=r"as its last token, but decoder_start_token_id=.*set_languages"):
        TranslationEditor(model, tokenizer).edit("der hund", "the dog", alternatives=["the dog runs"])


def test_unknown_languages_are_refused(tiny_model, tiny_tokenizer):
    with pytest.raises(EditableTypeError, match="knows no languages"):
        set_languages(tiny_model, tiny_tokenizer, "de", "en")
    tokenizer = tokenizer_of("m2m_100")
    model = model_of("m2m_100", tokenizer)
    before = (tokenizer.src_lang, tokenizer.tgt_lang, model.generation_config.forced_bos_token_id)
    with pytest.raises(EditableValueError, match="knows no language 'english', but.*eng_Latn"):
        set_languages(model, tokenizer, "deu_Latn", "english")
    assert (tokenizer.src_lang, tokenizer.tgt_lang, model.generation_config.forced_bos_token_id) == before


def test_the_commands_take_languages(tmp_path, capsys):
    from hf_editable.cli.commands.edit_translation import main

    tokenizer = tokenizer_of("m2m_100")
    model_of("m2m_100", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    argv = ["--model_name_or_path", str(tmp_path), "--source", "der hund", "--target", "the dog", "--max_steps", "1"]
    assert main([*argv, "--alternatives", "dog", "--source_lang", "deu_Latn", "--target_lang", "eng_Latn"]) in (0, 3)
    assert "wanted: the dog" in capsys.readouterr().out
    assert main([*argv, "--source_lang", "deu_Latn", "--target_lang", "klingon"]) == 2
    assert "knows no language 'klingon'" in capsys.readouterr().err


def test_base_batches_do_not_start_twice():
    tokenizer = tokenizer_of("seamless_m4t")
    model = model_of("seamless_m4t", tokenizer)
    ids = tokenizer(text_target="the dog").input_ids
    assert ids[0] == model.config.decoder_start_token_id  # or there is nothing to test
    batch = DataCollatorForEditableSeq2Seq(tokenizer, model)([{"input_ids": [5, 6], "labels": ids}])
    assert batch["labels"].tolist() == [ids[1:]]
    assert decoder_inputs(model, batch["labels"]).tolist() == [ids[:-1]]
    other = DataCollatorForEditableSeq2Seq(tokenizer, model_of("m2m_100", tokenizer))
    assert other([{"input_ids": [5, 6], "labels": ids}])["labels"].tolist() == [ids]
