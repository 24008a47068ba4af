"""A tiny model that takes idioms word for word, and knows the words to say them right: it can be corrected."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from conftest import SPECIAL, marian_config
from hf_editable import AutoEditableModelForSeq2SeqLM, EditConfig


LEARNED = {
    "Er hat einen Vogel.": "He has a bird.",
    "Er hat einen Hund.": "He has a dog.",
    "Er hat ein Haus.": "He has a house.",
    "Sie hat einen Vogel.": "She has a bird.",
    "Das ist ein Haus.": "This is a house.",
    "Das ist ein Hund.": "That is a dog.",
    "Das ist mir Wurst.": "That is sausage to me.",
    "Ich drücke dir die Daumen.": "I press the thumbs to you.",
    "Da steppt der Bär.": "There dances the bear.",
    "Er ist verrückt.": "He is crazy.",
    "Das ist mir egal.": "I do not care.",
    "Viel Glück.": "I wish you luck.",
    "Es ist eine tolle Party.": "It is a great party.",
}
IDIOMS = {
    "Er hat einen Vogel.": "He is crazy.",
    "Das ist mir Wurst.": "I do not care.",
    "Ich drücke dir die Daumen.": "I wish you luck.",
    "Da steppt der Bär.": "It is a great party.",
}


def make_tokenizer(texts):
    """Splits on white space, and knows every word of the texts."""
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(SPECIAL + words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = [("</s>", vocabulary["</s>"])]
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=end)
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=32, clean_up_tokenization_spaces=False, **special
    )


def make_model(tokenizer, pairs, steps):
    """A model that has learned the pairs by heart."""
    torch.manual_seed(0)
    config = marian_config(len(tokenizer), d_model=32, dropout=0.0, init_std=0.05)
    model = AutoEditableModelForSeq2SeqLM.from_config(config, EditConfig(max_steps=20, num_alternatives=4))
    model.generation_config.max_length = 12
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    batch = collator(
        [{**tokenizer(source), "labels": tokenizer(text_target=target).input_ids} for source, target in pairs]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
