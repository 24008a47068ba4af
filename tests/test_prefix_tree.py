"""Translations scored on their distinct prefixes, and steps of an edit that are taken again in the backward pass."""

import weakref

import pytest
import torch
from families import FAMILIES, build

from hf_editable import EditConfig
from hf_editable.editors import make_editor
from hf_editable.editors.problems.translation_problem import TranslationEditProblem
from hf_editable.numerics.gradients import recomputed, with_gradients
from hf_editable.numerics.scoring import PADDING, token_log_probs
from hf_editable.tail.decoder_tail import Tail
from hf_editable.tail.prefix_tree import PrefixTree, takes_prefix_trees


LABELS = torch.tensor([[5, 6, 7, 2], [5, 6, 8, 2], [5, 9, 2, PADDING], [5, 6, 7, 9]])


def source():
    input_ids = torch.tensor([[4, 11, 23, 9, 2, 1]])
    return input_ids, (input_ids != 1).long()


def test_each_prefix_is_there_once():
    tokens = torch.tensor([[2, 5, 6, 7], [2, 5, 6, 8], [2, 5, 9, 1], [2, 5, 6, 7]])
    tree = PrefixTree.of(tokens, LABELS)
    assert tree.places.tolist() == [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 5, 0], [0, 1, 2, 3]]
    assert tree.ends.tolist() == [0, 1, 2, 3, 7, 10]
    few, chosen = tree.select([0, 2])
    assert chosen.tolist() == [0, 1, 2, 3, 5] and few.places.tolist() == [[0, 1, 2, 3], [0, 1, 4, 0]]
    assert few.ends.tolist() == [0, 1, 2, 3, 6]
    states = torch.arange(5.0)[:, None]
    assert few.spread(states).shape == (2, 4, 1) and torch.equal(few.gather(few.spread(states)), states)


@pytest.mark.parametrize("layers", [-1, [0, 2], [0]], ids=["last", "first and last", "first"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if takes_prefix_trees(build(family))])
@torch.no_grad()
def test_scores_on_prefixes_are_those_of_whole_translations(family, layers):
    model = build(family).eval()
    tail = Tail(model, EditConfig(layers_to_transform=layers))
    states = tail.record_prefixes(*source(), LABELS, LABELS)
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in tail.parameters.items()
    }
    for parameters in (None, moved):
        expected = token_log_probs(tail.logits(tail.record(*source(), LABELS), parameters), LABELS)
        found = states.tree.token_log_probs(tail.logits(states, parameters)[0], LABELS)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        pair = states.rows([0, 2])
        few = pair.tree.token_log_probs(tail.logits(pair, parameters)[0], LABELS[[0, 2]])
        torch.testing.assert_close(few, expected[[0, 2]], rtol=1e-4, atol=1e-5)


def test_other_layers_measure_distances_themselves():
    assert takes_prefix_trees(build("marian")) and not takes_prefix_trees(build("t5"))
    model = build("marian")
    model.set_attn_implementation("flex_attention")
    assert not takes_prefix_trees(model)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_prefixes_leave_no_trace_in_the_tail(attention):
    model = build("marian").eval()
    model.set_attn_implementation(attention)
    tail, batch = Tail(model, EditConfig()), (*source(), LABELS)
    expected = tail.logits(tail.record(*batch))
    prefixes = tail.record_prefixes(*batch, LABELS)
    found = prefixes.tree.token_log_probs(tail.logits(prefixes)[0], LABELS)
    torch.testing.assert_close(found, token_log_probs(expected, LABELS), rtol=1e-4, atol=1e-5)
    states = tail.record(*batch)
    parts = (tail._trunk, tail._tail)
    assert not any(config.takes_trees for part in parts for config in part._attention)
    assert torch.equal(tail.logits(states), expected)


def test_known_gradients():
    inputs = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    value = with_gradients(torch.tensor(7.0), inputs, [torch.tensor([4.0, 5.0]), None])
    (2 * value).backward()
    assert value == 7 and inputs[0].grad.tolist() == [8.0, 10.0] and inputs[1].grad is None


def test_derivatives_inside_what_is_recomputed():
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def step(tensors, create_graph):
        (inner,) = torch.autograd.grad((weight * tensors[0] ** 3).sum(), tensors[0], create_graph=create_graph)
        return [tensors[0] - 0.1 * inner]

    value = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda value, weight: recomputed(step, [value], [weight])[0].sum(), (value, weight)
    )


@pytest.mark.parametrize("optimizer", ["gd", "scaled_gd", "rprop", "rmsprop", "momentum", "adam"])
def test_steps_taken_again_have_the_same_gradients(tiny_model, tiny_batch, optimizer):
    model = tiny_model.double()
    found = []
    for checkpoint in (False, True):
        model.edit_config = EditConfig(
            optimizer=optimizer, learning_rate=1e-3, max_steps=3, checkpoint_edits=checkpoint
        )
        output = model(**tiny_batch)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(output.loss, weights, allow_unused=True)
        found.append((output.loss, output.edit_steps, *gradients))
        assert output.edit_steps == 3 and output.edit_loss > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


class Kept:
    """A tensor that a graph holds."""

    def __init__(self, tensor):
        self.tensor = tensor


def test_what_checkpointed_edits_keep(tiny_model, tiny_batch):
    growth = {}
    for checkpoint in (False, True):
        sizes = []
        for steps in (2, 6):
            tiny_model.edit_config = EditConfig(learning_rate=1e-5, max_steps=steps, checkpoint_edits=checkpoint)
            graph = weakref.WeakSet()

            def keep(tensor, graph=graph):
                graph.add(kept := Kept(tensor))
                return kept

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
                output = tiny_model(**tiny_batch)
            assert output.edit_steps == steps
            sizes.append(sum({kept.tensor.data_ptr(): kept.tensor.nbytes for kept in graph}.values()))
        growth[checkpoint] = sizes[1] - sizes[0]
    edited = sum(weight.nbytes for weight in Tail(tiny_model, tiny_model.edit_config).parameters.values())
    # Parameters and their running mean of squares, for each of two edits and four steps.
    assert 0 < growth[True] <= 1.1 * 2 * 4 * 2 * edited < growth[False] / 2


def test_a_problems_term_is_its_value(tiny_model, tiny_batch):
    edit = [tiny_batch[f"edit_{name}"][:1] for name in ("input_ids", "attention_mask", "labels", "alternative_labels")]
    tail = Tail(tiny_model, tiny_model.edit_config)
    problem = TranslationEditProblem(tail, *edit, length_penalty=1.0, create_graph=True)
    term = problem.term(dict(tail.parameters))
    assert problem(dict(tail.parameters)).item() == pytest.approx(term.value.item()) and term.value > 0
    assert all(tensor.requires_grad for tensor in term.inputs) and len(term.inputs) == 2
    outcome = make_editor(tiny_model.edit_config)(problem)
    assert outcome.steps > 0 and outcome.loss <= 0
