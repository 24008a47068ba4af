"""The output projection inside edits that are trained through."""

import pytest
import torch

from hf_editable import EditableTypeError, EditConfig
from hf_editable.numerics import output_projection as projection
from hf_editable.numerics.output_projection import TrainedProjection
from hf_editable.tail.decoder_tail import Tail


PLACES, TOKENS = torch.tensor([0, 0, 1, 3]), torch.tensor([5, 8, 5, 0])


def case():
    generator = torch.Generator().manual_seed(0)
    shapes = {"weight": (11, 6), "inner": (7, 6), "states": (4, 7)}
    made = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def plain(hidden, weight, bias):
    return torch.nn.functional.linear(hidden, weight, bias).log_softmax(-1)[PLACES, TOKENS]


def trained(ours, bias=None):
    """What `log_probs` of the projection gives, which is told what the states predict."""

    def log_probs(hidden):
        with torch.no_grad():
            probabilities = torch.nn.functional.linear(hidden, ours.weight, bias).softmax(-1)
            known = plain(hidden, ours.weight, bias)
        return ours.log_probs(hidden, PLACES, TOKENS, probabilities, known)

    return log_probs


def after_two_steps(log_probs, tensors):
    """A value that depends on gradients with respect to `inner`, and on log-probabilities themselves."""
    inner, shares = tensors["inner"], torch.tensor([1.0, -0.5, 0.3, -2.0], dtype=torch.float64)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(
            (shares * log_probs((tensors["states"] @ inner).tanh())).sum(), inner, create_graph=True
        )
        inner = inner - 0.1 * gradient / (gradient.square() + 1e-3).sqrt()
    return log_probs((tensors["states"] @ inner).tanh()).square().sum() + inner.square().sum()


@pytest.mark.parametrize("waiting", [1, 10**9], ids=["at once", "together"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_gradients_are_those_of_the_plain_projection(bias, waiting, monkeypatch):
    monkeypatch.setattr(projection, "_MOST_WAITING", waiting)
    tensors = case()
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64) if bias else None
    ours = TrainedProjection(tensors["weight"])
    names = list(tensors)
    found = after_two_steps(trained(ours, bias), tensors)
    expected = after_two_steps(lambda hidden: plain(hidden, tensors["weight"], bias), tensors)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
    gradients = torch.autograd.grad(expected, tensors.values())
    assert all(gradient.abs().max() > 1e-2 for gradient in gradients)
    # A pass that does not ask for the weight's gradient leaves nothing behind for those that do.
    torch.autograd.grad(found, tensors["inner"], retain_graph=True)
    for _ in range(2):
        again = torch.autograd.grad(found, tensors.values(), retain_graph=True)
        for name, own, gradient in zip(names, again, gradients, strict=True):
            torch.testing.assert_close(own, gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_weight_that_is_not_trained_gets_no_gradient():
    tensors = case()
    expected = after_two_steps(lambda hidden: plain(hidden, tensors["weight"], None), tensors)
    (gradient,) = torch.autograd.grad(expected, tensors["inner"])
    ours = TrainedProjection(tensors["weight"].requires_grad_(False))
    found = after_two_steps(trained(ours), tensors)
    torch.testing.assert_close(torch.autograd.grad(found, tensors["inner"])[0], gradient)


def test_third_derivatives_are_refused():
    tensors = case()
    ours = TrainedProjection(tensors["weight"])
    value = after_two_steps(trained(ours), tensors)
    with pytest.raises(EditableTypeError, match="create_graph"):
        torch.autograd.grad(value, tensors["weight"], create_graph=True)


def test_where_the_plain_projection_is_used(tiny_model):
    assert isinstance(ready(tiny_model, EditConfig()).trained_projection, TrainedProjection)
    # What is kept would be more than checkpointed edits are to keep.
    assert ready(tiny_model, EditConfig(checkpoint_edits=True)).trained_projection is None
    head = tiny_model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.ones(head.out_features))
    assert ready(tiny_model, EditConfig()).trained_projection is None


def ready(model, config):
    tail = Tail(model, config)
    ids = torch.tensor([[5, 6, 7]])
    tail.check_exact(tail.record(ids, None, ids))
    return tail


def test_gradients_of_a_training_step_are_dense(tiny_model, tiny_batch):
    output = tiny_model(**tiny_batch)
    assert output.edit_steps > 0
    output.loss.backward()
    assert all(weight.grad.layout == torch.strided for weight in tiny_model.parameters() if weight.requires_grad)
