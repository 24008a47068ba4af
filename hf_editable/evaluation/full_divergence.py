"""What edits that move more than the tail do to a test set."""

from collections.abc import Mapping, Sequence

import torch
from torch.func import functional_call

from ..data.collator import DataCollatorForEditableSeq2Seq
from ..modeling.mixin import EditableMixin
from ..models.families import decoder_inputs
from ..numerics.scoring import num_tokens, token_kl
from ..patches.application import parameters_of, put, working_copy
from ..patches.changes import Change, changed_values


def full_divergence(
    model: EditableMixin,
    changes: Sequence[Change],
    collator: DataCollatorForEditableSeq2Seq,
    pairs: Sequence[Mapping[str, str]],
    batch_size: int,
) -> float:
    """
    `KL(model || model with the changes)` in nats, averaged over the tokens of all references, by full passes of both.

    Args:
        model ([`EditableMixin`]): the unedited model, in evaluation mode.
        changes (`Sequence[Change]`): what an edit does to it.
        collator ([`DataCollatorForEditableSeq2Seq`]): with the model's tokenizer.
        pairs (`Sequence[dict[str, str]]`): `source` and `target`, the reference.
        batch_size (`int`): sentences in a batch.
    """
    tokenizer = collator.tokenizer
    # Values that are there already need not be copied; what else the edit does goes into a copy that shares the rest.
    parameters = changed_values(changes, parameters_of(model, changes))
    named = {name: parameters[name] for name, _ in model.named_parameters() if name in parameters}  # tied ones once
    twin = working_copy(model, ())
    put(twin, [change for change in changes if not change.names])
    sources = tokenizer([pair["source"] for pair in pairs], verbose=False).input_ids
    targets = tokenizer(text_target=[pair["target"] for pair in pairs], verbose=False).input_ids
    order = sorted(range(len(pairs)), key=lambda index: len(targets[index]), reverse=True)
    total, tokens = 0.0, 0
    for start in range(0, len(order), batch_size):
        rows = [{"input_ids": sources[i], "labels": targets[i]} for i in order[start : start + batch_size]]
        batch = collator(rows).to(model.device)
        labels = batch["labels"]
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        inputs |= {"decoder_input_ids": decoder_inputs(model, labels), "use_cache": False, "return_dict": True}
        reference = model(**inputs).logits
        edited = functional_call(twin, named, kwargs=inputs).logits
        total += float(token_kl(reference, edited, labels).sum(dtype=torch.float64))
        tokens += int(num_tokens(labels))
    return total / tokens
