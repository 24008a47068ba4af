"""Scores, the constraint, the KL divergence and the cross-entropy, by hand."""

import math

import pytest
import torch

from hf_editable import EditableValueError
from hf_editable.numerics.scoring import constraint_loss, cross_entropy, sequence_scores, token_kl, token_log_probs


LOGITS = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [0.0, 5.0, 0.0]]])
LABELS = torch.tensor([[2, 0], [1, -100]])


def by_hand(row, position):
    values = LOGITS[row, position].tolist()
    return values[LABELS[row, position]] - math.log(sum(math.exp(value) for value in values))


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0])
def test_scores_by_hand(length_penalty):
    expected = [(by_hand(0, 0) + by_hand(0, 1)) / 2**length_penalty, by_hand(1, 0)]
    torch.testing.assert_close(sequence_scores(LOGITS, LABELS, length_penalty), torch.tensor(expected))


def test_padding_changes_no_score():
    padded_logits = torch.cat([LOGITS, torch.randn(2, 3, 3)], dim=1)
    padded_labels = torch.nn.functional.pad(LABELS, (0, 3), value=-100)
    assert torch.equal(sequence_scores(padded_logits, padded_labels, 0.6), sequence_scores(LOGITS, LABELS, 0.6))


def test_a_translation_without_tokens_has_no_score():
    with pytest.raises(EditableValueError, match=r"\[1\] have no token"):
        sequence_scores(LOGITS, torch.tensor([[2, 0], [-100, -100]]), 1.0)


def test_constraint_is_the_best_alternative_against_the_target():
    assert constraint_loss(torch.tensor([-1.0, -3.0, -0.5, -2.0])) == 0.5
    assert constraint_loss(torch.tensor([-0.1, -3.0])) == pytest.approx(-2.9)


def test_kl_equals_torch_distributions_and_is_zero_on_padding():
    other = torch.randn(LOGITS.shape, generator=torch.Generator().manual_seed(0))
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (LOGITS, other))
    expected = torch.distributions.kl_divergence(p, q).masked_fill(LABELS == -100, 0.0)
    torch.testing.assert_close(token_kl(LOGITS, other, LABELS), expected)
    assert token_kl(LOGITS, LOGITS, LABELS).abs().max() == 0


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.randn(2, 2, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert token_log_probs(logits, LABELS).dtype == torch.float32
    assert torch.equal(token_log_probs(logits, LABELS), token_log_probs(logits.float(), LABELS))


def test_cross_entropy_divides_by_the_given_number_of_items():
    mean = cross_entropy(LOGITS, LABELS)
    assert mean.item() == pytest.approx(-(by_hand(0, 0) + by_hand(0, 1) + by_hand(1, 0)) / 3)
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS, num_items=12), mean * 3 / 12)
