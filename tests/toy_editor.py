"""An editor of another package, as small as one can be: it nudges one matrix towards the target."""

from dataclasses import dataclass

import torch

from hf_editable import EditableValueError
from hf_editable.editors import Editor, EditOutcome, Tunable, register_editor


@dataclass(frozen=True)
class ToyOptions:
    """How far a nudge goes."""

    strength: float = 0.5

    def __post_init__(self):
        if not self.strength > 0:
            raise EditableValueError(f"strength={self.strength!r}: it must be above 0.")


class ToyEditor(Editor):
    """Steps of one length against the gradient of the largest matrix alone, with a gain of its own."""

    def __init__(self, config, options, model):
        super().__init__(config, options, model)
        self.register_buffer("gain", torch.tensor(1.0))

    def forward(self, problem, create_graph=False):
        (name,) = self.moved(problem.model)
        value, steps, initial = problem.parameters[name].detach().clone(), 0, None
        while True:
            point = value.requires_grad_()
            loss = problem({**problem.parameters, name: point})
            initial = loss.item() if initial is None else initial
            if loss <= 0 or steps == self.config.max_steps:
                return EditOutcome({name: value.detach()}, loss.detach(), initial, steps)
            (gradient,) = torch.autograd.grad(loss, point)
            value = (value - self.options.strength * self.gain * gradient / gradient.norm()).detach()
            steps += 1

    def moved(self, model):
        moved = super().moved(model)
        largest = max(moved, key=lambda name: moved[name].numel())
        return {largest: moved[largest]}

    def tunables(self):
        return {"strength": Tunable((0.1, 10.0), scale=True)}


def register():
    register_editor("toy", ToyOptions, ToyEditor)
