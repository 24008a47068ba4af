"""What the tests of editors share: their names, what makes each of them, and plain ways to look at a model."""

PENALIZED = ["kl", "rehearsal", "ewc"]
NAMES = ["gradient", *PENALIZED, "finetune_all", "finetune_edited", "cache"]


def settings_of(name, **settings):
    """What makes an editor of the tests; settings replace theirs."""
    if name in PENALIZED:
        return {"editor": name, "num_pairs": 6, "weight": 1.0, **settings}
    if name.startswith("finetune_"):
        return {"editor": name, "adamw_learning_rate": 0.01, **settings}
    return {"editor": name, **settings}


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def all_pairs(tokenizer, pairs):
    """The pairs that a sample of as many has, one at a time, as tensors."""
    for pair in pairs:
        yield (
            tokenizer(pair["source"], return_tensors="pt").input_ids,
            tokenizer(text_target=pair["target"], return_tensors="pt").input_ids,
        )
