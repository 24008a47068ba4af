"""Which translation outranks the target most, from the whole vocabulary after few prefixes."""

import pytest
import torch
from families import build
from test_prefix_tree import LABELS, source

from hf_editable import EditConfig
from hf_editable.editors.problems.translation_problem import TranslationEditProblem
from hf_editable.numerics import bounds
from hf_editable.numerics.bounds import LeadingScores, NormalizerBound
from hf_editable.numerics.scoring import PADDING
from hf_editable.tail.decoder_tail import Tail
from hf_editable.tail.prefix_tree import PrefixTree


VOCABULARY, SIZE = 4000, 16


def projection(seed, bias=True, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    weight = scale * torch.randn(VOCABULARY, SIZE, generator=generator)
    return weight, torch.randn(VOCABULARY, generator=generator) if bias else None


def states(seed, rows, scale=1.0):
    return scale * torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0, 30.0])
def test_the_bound_is_never_above_the_normalizer(monkeypatch, scale, bias):
    monkeypatch.setattr(bounds, "_FEW", 512)  # how tight it is depends on that
    weight, b = projection(0, bias, scale)
    anchors = states(1, 12)
    tokens = torch.tensor([[3, 5], [7, 3]])
    probabilities = torch.nn.functional.linear(anchors, weight, b).softmax(-1)
    bound = NormalizerBound(weight, b, probabilities, tokens)
    assert set(tokens.flatten().tolist()) <= set(bound.tokens.tolist()) and len(bound.tokens) < VOCABULARY / 4
    for hidden in (anchors, anchors + states(2, 12, 0.1), states(3, 500, 2.0)):
        logits = torch.nn.functional.linear(hidden, weight, b)
        few, found = bound(hidden)
        torch.testing.assert_close(few, logits[:, bound.tokens], rtol=1e-4, atol=1e-4 * scale)
        assert (found <= logits.logsumexp(-1) + 1e-4 * max(1.0, scale)).all()
        # What is left out still counts: without it, the bound would be that of the few tokens alone.
        assert (found >= few.logsumexp(-1)).all()
    near = torch.nn.functional.linear(anchors, weight, b)
    if scale == 0.1:
        assert (near.logsumexp(-1) - bound(anchors)[1]).max() < 0.1 < (near.logsumexp(-1) - few.logsumexp(-1)[0]).max()


def test_with_the_whole_vocabulary_the_bound_is_the_normalizer():
    weight, bias = projection(0)
    weight, bias = weight[:100], bias[:100]
    hidden = states(1, 6)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    bound = NormalizerBound(weight, bias, logits.softmax(-1), torch.tensor([0]))
    torch.testing.assert_close(bound(hidden)[1], logits.logsumexp(-1))


def test_tokens_whose_probability_is_zero_are_left_out():
    weight, _ = projection(0)
    probabilities = torch.zeros(2, VOCABULARY)
    probabilities[:, 7] = 1.0
    hidden = states(1, 6)
    found = NormalizerBound(weight, None, probabilities, torch.tensor([7]))(hidden)[1]
    assert (found <= (hidden @ weight.T).logsumexp(-1)).all() and found.isfinite().all()


def search_case(seed):
    """A tree of random translations with hidden states, and the terms of translations of unlike lengths."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, 9, (24, 7), generator=generator)
    lengths = torch.randint(2, 8, (24,), generator=generator)
    labels[torch.arange(7) >= lengths[:, None]] = PADDING
    inputs = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=0).clamp(min=1)
    tree = PrefixTree.of(inputs, labels)
    sizes = (labels != PADDING).sum(1).float() ** 0.7

    def terms(log_probs):
        scores = log_probs.sum(1) / sizes
        return scores[1:] - scores[0]

    return tree, labels, terms


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_term_is_that_of_all(seed):
    tree, labels, terms = search_case(seed)
    weight, bias = projection(seed, scale=0.5)
    anchors = states(seed, len(tree.ends))
    bound, predicted = None, []
    for step in range(4):
        hidden = anchors + states(100 + seed, len(anchors), 0.15 * step)
        expected = tree.token_log_probs(torch.nn.functional.linear(hidden, weight, bias), labels)
        scores = LeadingScores((weight, bias), hidden, tree.places, labels, terms, bound)
        value, winner = terms(expected).max(0)
        found, place = terms(scores.log_probs).max(0)
        assert place == winner and found.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-4)
        assert (scores.log_probs >= expected - 1e-4).all()
        bound = scores.bound
        predicted.append(int((scores._rows >= 0).sum()))
    assert min(predicted) < len(anchors)


@pytest.mark.parametrize("bounded", [False, True], ids=["first", "later"])
def test_gradient_of_the_largest_term(bounded):
    tree, labels, terms = search_case(3)
    weight, bias = (tensor.double() for tensor in projection(3, scale=0.5))
    anchors = states(3, len(tree.ends)).double()
    bound = LeadingScores((weight, bias), anchors, tree.places, labels, terms).bound
    hidden = (anchors + states(4, len(anchors), 0.2)).requires_grad_()
    logits = torch.nn.functional.linear(hidden, weight, bias)
    (expected,) = torch.autograd.grad(terms(tree.token_log_probs(logits, labels)).max(), hidden)
    with torch.no_grad():
        scores = LeadingScores((weight, bias), hidden, tree.places, labels, terms, bound if bounded else None)
        found = scores.gradient()
    assert bool((scores._rows < 0).any()) and expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected)


def not_a_number(tree):
    hidden = states(0, len(tree.ends))
    hidden[0, 0] = torch.nan
    return hidden


def test_not_a_number_comes_through():
    tree, labels, terms = search_case(0)
    weight, bias = projection(0)
    bound = LeadingScores((weight, bias), states(0, len(tree.ends)), tree.places, labels, terms).bound
    scores = LeadingScores((weight, bias), not_a_number(tree), tree.places, labels, terms, bound)
    assert terms(scores.log_probs).max(0).values.isnan()


@pytest.mark.parametrize("family", ["marian", "bart"])
def test_edits_are_the_same_without_bounds(family, monkeypatch):
    model = build(family).eval()
    config = EditConfig(learning_rate=1e-3, max_steps=6)
    tail = Tail(model, config)
    problem = (*source(), LABELS[3:], LABELS[None, :3])
    found = []
    for bounded in (True, False):
        if not bounded:
            monkeypatch.setattr(Tail, "projection", None)
        own = TranslationEditProblem(tail, *problem, length_penalty=1.0)
        generator = torch.Generator().manual_seed(0)
        values = []
        for step in range(6):
            moved = {
                name: (weight + 0.03 * step * torch.randn(weight.shape, generator=generator)).detach().requires_grad_()
                for name, weight in tail.parameters.items()
            }
            loss = own(moved)
            values.append(loss.detach())
            values += torch.autograd.grad(loss, list(moved.values())) if loss > 0 else []
        assert (own._bound is not None) == bounded and len(values) > 6
        found.append(values)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


def test_half_precision_has_no_bounds():
    model = build("marian").eval()
    tail = Tail(model, EditConfig())
    TranslationEditProblem(tail, *source(), LABELS[:1], LABELS[None, 1:], length_penalty=1.0)
    assert tail.projection is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert tail.projection is None
    assert Tail(model.bfloat16(), EditConfig()).projection is None
