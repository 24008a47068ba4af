"""Editable Training without any short cut: the reference that the fast implementation is held against.

The whole model runs for every sequence at every step, with the source encoded once for each, all sequences are in the
graph, and nothing of hf_editable is used.
"""

import torch
from torch.func import functional_call


def shift_right(labels, model):
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return model.prepare_decoder_input_ids_from_labels(labels=labels.clone())
    start = torch.full((labels.shape[0], 1), model.config.decoder_start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, model.config.pad_token_id)


def logits_of(model, parameters, input_ids, attention_mask, labels):
    arguments = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "decoder_input_ids": shift_right(labels, model),
        "use_cache": False,
    }
    return functional_call(model, parameters, kwargs=arguments).logits


def token_log_probs(logits, labels):
    tokens = labels.clamp(min=0)
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] * (labels != -100)


def edit_loss(model, parameters, edit, length_penalty):
    """`l_e` of one edit: source, mask, labels, alternatives and, if it has any, prefixes."""
    input_ids, attention_mask, labels, alternatives, *prefixes = edit

    def score(sequence):
        sequence = sequence[:, (sequence[0] != -100)]
        logits = logits_of(model, parameters, input_ids, attention_mask, sequence)
        return token_log_probs(logits, sequence).sum() / sequence.shape[1] ** length_penalty

    terms = [score(sequence) - score(labels) for sequence in alternatives[0].split(1)]
    for prefix in prefixes[0][0].split(1) if prefixes else ():
        terms.append(score(prefix) - score(labels[:, : (prefix[0] != -100).sum()]))
    return torch.stack(terms).max()


def rmsprop_edit(model, parameters, names, edit, alpha, beta, epsilon, max_steps, length_penalty, create_graph=True):
    """Edited parameters, `l_e` at them, and the number of steps (paper, eq. 1, with RMSProp)."""
    current, rms, steps = dict(parameters), None, 0
    loss = edit_loss(model, current, edit, length_penalty)
    while loss > 0 and steps < max_steps:
        gradients = torch.autograd.grad(
            loss, [current[name] for name in names], create_graph=create_graph, materialize_grads=True
        )
        squares = [gradient**2 for gradient in gradients]
        rms = (
            squares if rms is None else [beta * old + (1 - beta) * new for old, new in zip(rms, squares, strict=True)]
        )
        for name, gradient, mean in zip(names, gradients, rms, strict=True):
            current[name] = current[name] - alpha * gradient / (mean + epsilon).sqrt()
        steps += 1
        loss = edit_loss(model, current, edit, length_penalty)
    return current, loss, steps


def objective(model, parameters, names, batch, edits, config, alpha, beta, length_penalty, reference=None):
    """`L_base + c_edit·L_edit + c_loc·L_loc` of a batch and its edits, each edit's locality on its rows."""
    source = (batch["input_ids"], batch["attention_mask"])
    labels = batch["labels"]
    tokens = (labels != -100).sum()
    logits = logits_of(model, parameters, *source, labels)
    reference = logits.detach() if reference is None else reference
    base = -token_log_probs(logits, labels).sum() / tokens
    edit_total, kl_total = 0.0, 0.0
    for edit, rows in zip(edits, torch.arange(len(labels)).tensor_split(len(edits)), strict=True):
        edited, loss, _ = rmsprop_edit(
            model, parameters, names, edit, alpha, beta, config.epsilon, config.max_steps, length_penalty
        )
        edit_total = edit_total + loss.clamp(min=0) / len(edits)
        edited_logits = logits_of(model, edited, source[0][rows], source[1][rows], labels[rows])
        p, q = reference[rows].log_softmax(-1), edited_logits.log_softmax(-1)
        kl_total = kl_total + ((p.exp() * (p - q)).sum(-1) * (labels[rows] != -100)).sum() / tokens
    return base + config.c_edit * edit_total + config.c_loc * kl_total
