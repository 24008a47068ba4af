"""What an editor is, what it solves, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..configuration import EditConfig
from ..data.references import References
from ..models.layers import edited_parameters
from ..patches.changes import Change, Whole


class EditProblem(Protocol):
    """
    What an editor solves: find a change of the model with which `l_e ≤ 0`. An editor that only takes steps against
    the gradient of `l_e` needs `parameters` and the call.

    Attributes:
        parameters (`dict[str, torch.Tensor]`): the edited parameters of [`EditConfig`], by name.
    """

    parameters: dict[str, Tensor]

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """`l_e`, a scalar; wherever it is above 0, differentiable with respect to `parameters`."""
        ...


@dataclass
class EditOutcome:
    """
    What an editor gives back.

    Args:
        parameters (`dict[str, torch.Tensor]`): θ', the values of the parameters that it moves, by name.
        loss (`torch.Tensor` of shape `()`): `l_e(θ')`; the edit succeeded if it is at most 0.
        initial_loss (`float`): `l_e(θ)`.
        steps (`int`): how many steps were taken.
        changes (`tuple[Change, ...]`, *optional*):
            what the edit does to the model, and a patch will hold; `None` is new values of `parameters`.
    """

    parameters: dict[str, Tensor]
    loss: Tensor
    initial_loss: float
    steps: int
    changes: tuple[Change, ...] | None = None

    def __post_init__(self):
        if self.changes is None:
            self.changes = (Whole(self.parameters),)


@dataclass(frozen=True)
class Tunable:
    """
    A setting of an editor that tuning chooses, by its name in [`EditConfig`] or in the editor's own options.

    Args:
        values (`tuple[float, ...]`):
            the values that are tried; of a setting with a `scale`, the ends of the range that the search begins with.
        scale (`bool`, *optional*, defaults to `False`):
            Whether it is a size, such as a step size, that is searched for on a logarithmic grid.
    """

    values: tuple[float, ...] = field(default=())
    scale: bool = False


class Editor(nn.Module):
    """
    Base class of editors: from an edit problem to changes of the model.

    A subclass defines `forward`, and what of the rest is other than here. Its parameters and buffers, if it has any,
    belong to the model: they are saved beside the checkpoint, loaded with it, and trained by Editable Training where
    they require gradients.

    Args:
        config ([`EditConfig`]): of the edits.
        options (`Any`, *optional*): the family's own settings: an instance of the class that it was registered with.
        model ([`~transformers.PreTrainedModel`], *optional*): the model, for editors whose tensors depend on it.

    Attributes:
        config ([`EditConfig`]), options (`Any`): the same.
    """

    # Whether `create_graph=True` gives an outcome that Editable Training can be differentiated through.
    is_differentiable: ClassVar[bool] = False
    # Whether it needs sentences that are to stay as they are.
    needs_references: ClassVar[bool] = False

    def __init__(self, config: EditConfig, options: Any = None, model: PreTrainedModel | None = None):
        super().__init__()
        self.config, self.options = config, options

    def forward(self, problem: EditProblem, create_graph: bool = False) -> EditOutcome:
        """
        Solve a problem. Nothing of the model is changed, also on an exception.

        Args:
            problem ([`EditProblem`]): what is to hold.
            create_graph (`bool`, *optional*, defaults to `False`): make the outcome differentiable.

        Raises:
            NonFiniteEditError: if `l_e` becomes NaN or infinite.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward().")

    def moved(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        """The model's parameters that edits may give other values; here those that [`EditConfig`] names."""
        return edited_parameters(model, self.config)

    def coefficients(self) -> dict[str, float]:
        """Fields of [`EditConfig`] that training has moved, with the values that they have now."""
        return {}

    def load_coefficients(self, values: Mapping[str, float]) -> None:
        """Set what `coefficients` gives, in place."""

    def own_tensors(self) -> dict[str, Tensor]:
        """What is saved in `editor.safetensors` beside a checkpoint: all parameters and buffers."""
        return dict(self.state_dict())

    def load_own_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """
        Set what `own_tensors` gives, in place.

        Raises:
            RuntimeError: if tensors are missing, are too many, or are of other shapes.
        """
        self.load_state_dict(dict(tensors))

    def logs(self) -> dict[str, float]:
        """What training logs of the editor, beside the terms of the objective."""
        return {}

    def tunables(self) -> dict[str, Tunable]:
        """The settings that tuning chooses, the one with a scale first."""
        return {}


class AdditiveCorrections(Protocol):
    """
    Corrections whose changes add up: each is what it is alone, whatever others there are.

    Attributes:
        levels (`int`): how thoroughly a correction can be made, from 0 to one less.
    """

    @property
    def levels(self) -> int: ...

    def parts(self, levels: Sequence[int]) -> list[tuple[Change, ...]]:
        """
        What each correction does to the model: changes that commute.

        Args:
            levels (`Sequence[int]`): of each correction, its level; −1 leaves it out.
        """
        ...


class AdditiveEditor(Editor):
    """
    Base class of editors whose edits stay out of each other's way. Corrections at the level of text are verified
    together, and those that beam search does not say are made more thoroughly.
    """

    def prepared(
        self, model: PreTrainedModel, edits: Sequence[Mapping[str, Tensor | None]], references: References | None
    ) -> AdditiveCorrections:
        """
        Corrections to be made.

        Args:
            model ([`~transformers.PreTrainedModel`]): the model; it is not changed.
            edits (`Sequence[dict[str, torch.Tensor]]`): `input_ids`, `attention_mask` and `labels` of each.
            references ([`References`], *optional*): sentences that are to stay as they are.
        """
        raise NotImplementedError(f"{type(self).__name__} has no prepared().")
