"""The six editors, by hand and against finite differences."""

import copy

import pytest
import torch

from hf_editable import EditConfig, NonFiniteEditError
from hf_editable.editors import make_editor
from hf_editable.editors.rmsprop import rmsprop_step


OPTIMIZERS = ["gd", "scaled_gd", "rprop", "rmsprop", "momentum", "adam"]


class Bowl:
    """`l_e(θ) = Σ c·θ² − threshold`: gradients by hand are 2·c·θ."""

    def __init__(self, values, threshold=0.0, dtype=torch.float64):
        self.scale = torch.tensor([1.0, 3.0, 0.5], dtype=dtype)
        self.threshold = threshold
        self.parameters = {"w": torch.tensor(values, dtype=dtype, requires_grad=True)}

    def __call__(self, parameters):
        return (self.scale * parameters["w"] ** 2).sum() - self.threshold


def edit_by_hand(optimizer, values, steps, alpha, beta, momentum, epsilon):
    """The textbook updates in plain Python floats."""
    scale = [1.0, 3.0, 0.5]
    theta, rms, velocity, mean = list(values), None, [0.0] * 3, [0.0] * 3
    square_mean = [0.0] * 3
    for step in range(steps):
        g = [2 * c * t for c, t in zip(scale, theta, strict=True)]
        if step == 0:
            norm = (sum(x * x for x in g) + epsilon**2) ** 0.5
            rms = [x * x for x in g]
        rms = [beta * r + (1 - beta) * x * x for r, x in zip(rms, g, strict=True)]
        velocity = [momentum * v + x for v, x in zip(velocity, g, strict=True)]
        mean = [momentum * m + (1 - momentum) * x for m, x in zip(mean, g, strict=True)]
        square_mean = [beta * s + (1 - beta) * x * x for s, x in zip(square_mean, g, strict=True)]
        adam = [
            (m / (1 - momentum ** (step + 1))) / (s / (1 - beta ** (step + 1)) + epsilon) ** 0.5
            for m, s in zip(mean, square_mean, strict=True)
        ]
        direction = {
            "gd": g,
            "scaled_gd": [x / norm for x in g],
            "rprop": [(x > 0) - (x < 0) for x in g],
            "rmsprop": [x / (r + epsilon) ** 0.5 for x, r in zip(g, rms, strict=True)],
            "momentum": velocity,
            "adam": adam,
        }[optimizer]
        theta = [t - alpha * d for t, d in zip(theta, direction, strict=True)]
    return theta


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_steps_by_hand(optimizer, steps):
    config = EditConfig(optimizer=optimizer, learning_rate=0.01, beta=0.7, momentum=0.8, epsilon=1e-4, max_steps=steps)
    values = [1.0, -2.0, 0.003]
    outcome = make_editor(config)(Bowl(values))
    assert outcome.steps == steps
    expected = edit_by_hand(optimizer, values, steps, 0.01, 0.7, 0.8, 1e-4)
    assert outcome.parameters["w"].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_stops_as_soon_as_the_constraint_holds():
    editor = make_editor(EditConfig(optimizer="gd", learning_rate=0.1, max_steps=10))
    outcome = editor(Bowl([1.0, 0.0, 0.0], threshold=0.5))
    assert outcome.steps == 2  # 1 → 0.8 → 0.64, and 0.64² < 0.5
    assert outcome.initial_loss == pytest.approx(0.5) and outcome.loss <= 0
    assert editor(Bowl([0.1, 0.0, 0.0], threshold=0.5)).steps == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_through_the_edit_equal_finite_differences(optimizer):
    config = EditConfig(optimizer=optimizer, learning_rate=0.02, beta=0.6, momentum=0.7, max_steps=3)
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)

    def downstream(values, raw_shift=None):
        editor = copy.deepcopy(make_editor(config))
        for parameter in editor.parameters():
            parameter.data = parameter.data.double()
        if raw_shift is not None:
            getattr(editor, raw_shift[0]).data += raw_shift[1]
        problem = Bowl(values)
        outcome = editor(problem, create_graph=True)
        return (outcome.parameters["w"] * weights).sum(), problem.parameters["w"], editor

    values = [1.0, -0.4, 0.7]
    result, parameter, editor = downstream(values)
    names, raws = zip(*editor.named_parameters(), strict=True)
    gradients = torch.autograd.grad(result, [parameter, *raws])
    step = 1e-6
    for index in range(3):
        low, high = (
            downstream([value + sign * step * (index == i) for i, value in enumerate(values)])[0] for sign in (-1, 1)
        )
        assert gradients[0][index].item() == pytest.approx(((high - low) / (2 * step)).item(), rel=1e-5)
    for name, gradient in zip(names, gradients[1:], strict=True):
        low, high = (downstream(values, (name, sign * step))[0] for sign in (-1, 1))
        assert gradient.item() == pytest.approx(((high - low) / (2 * step)).item(), rel=1e-5)
        assert gradient != 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_coefficients_come_back_to_the_last_bit(optimizer):
    editor = make_editor(EditConfig(optimizer=optimizer))
    assert editor.coefficients()["learning_rate"] == 1e-3
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        for parameter in editor.parameters():
            parameter.data += 0.1 * torch.randn((), generator=generator)
        other = make_editor(EditConfig(optimizer=optimizer))
        other.load_coefficients(editor.coefficients())
        assert all(torch.equal(a, b) for a, b in zip(editor.parameters(), other.parameters(), strict=True))


def test_adams_momentum_stays_above_a_tenth():
    editor = make_editor(EditConfig(optimizer="adam"))
    editor.raw_momentum.data.fill_(-50.0)
    assert editor.coefficients()["momentum"] == pytest.approx(0.1)
    EditConfig(optimizer="adam", **editor.coefficients())  # at the limit, and still valid


def test_half_precision_does_not_round_the_coefficients():
    editor = make_editor(EditConfig(learning_rate=3.3e-4))
    before = [parameter.clone() for parameter in editor.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, editor.bfloat16().parameters(), strict=True))


def test_small_steps_add_up_in_half_precision():
    # 1e-3 is below half a unit in the last place of 1.0 in bfloat16, so each step alone would be lost.
    config = EditConfig(optimizer="rprop", learning_rate=1e-3, max_steps=10)
    outcome = make_editor(config)(Bowl([1.0, 1.0, 1.0], dtype=torch.bfloat16))
    assert outcome.parameters["w"].dtype == torch.bfloat16
    assert outcome.parameters["w"].tolist() == pytest.approx([0.99] * 3, abs=2e-3)


def test_fixed_coefficients_are_not_learned():
    editor = make_editor(EditConfig(learn_coefficients=False))
    assert not any(parameter.requires_grad for parameter in editor.parameters())


@pytest.mark.parametrize(("values", "steps"), [([float("nan"), 0.0, 0.0], 0), ([1e160, 0.0, 0.0], 0)])
def test_a_loss_that_is_not_finite(values, steps):
    with pytest.raises(NonFiniteEditError, match=f"after {steps} steps; the model is unchanged"):
        make_editor(EditConfig())(Bowl(values))


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_derivatives_of_a_step_of_rmsprop(first):
    generator = torch.Generator().manual_seed(0)
    value, gradient, mean = (torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    given = [value, gradient, None if first else mean.square(), torch.tensor(0.1).double(), torch.tensor(0.7).double()]
    leaves = [tensor.requires_grad_() for tensor in given if tensor is not None]

    def step(*tensors):
        tensors = [*tensors[:2], None, *tensors[2:]] if first else tensors
        return rmsprop_step(*tensors, 1e-3)

    # β says nothing about the first step.
    assert torch.autograd.gradcheck(step, leaves)
    after, rms = step(*leaves)
    expected = given[1] ** 2 if first else 0.7 * given[2] + 0.3 * given[1] ** 2
    torch.testing.assert_close(rms, expected)
    torch.testing.assert_close(after, value - 0.1 * given[1] / (expected + 1e-3).sqrt())
