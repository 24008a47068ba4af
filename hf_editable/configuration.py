"""What is edited, with which optimizer, and how training for editability is weighted."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from transformers.utils import ExplicitEnum, logging

from .errors import EditableTypeError, EditableValueError


logger = logging.get_logger(__name__)

DEFAULT_EDITOR = "gradient"


class EditOptimizer(ExplicitEnum):
    """The differentiable optimizers an edit can take its steps with (paper, section 3 and Table 1)."""

    GD = "gd"
    SCALED_GD = "scaled_gd"
    RPROP = "rprop"
    RMSPROP = "rmsprop"
    MOMENTUM = "momentum"
    ADAM = "adam"


class BaseLoss(ExplicitEnum):
    """The first term of the training objective: the task's own loss, or staying near the original model."""

    CROSS_ENTROPY = "cross_entropy"
    DISTILLATION = "distillation"


@dataclass(frozen=True)
class EditConfig:
    r"""
    Configuration of edits and of Editable Training ([Sinitsin et al., 2020](https://arxiv.org/abs/2004.00345)).

    It is kept in a checkpoint's `config.json` under the key `"editable"`. Instances do not change; `replace` makes
    others.

    Args:
        editor (`str`, *optional*, defaults to `"gradient"`):
            Family of the editor that makes edits: `"gradient"`, or another that [`~editors.editor_names`] lists.
        editor_options (`dict[str, Any]`, *optional*):
            Settings that the family has beside those here, as plain JSON values; `None` takes its defaults.
        optimizer (`str`, *optional*, defaults to `"rmsprop"`):
            Optimizer of an edit by gradients: `"gd"`, `"scaled_gd"`, `"rprop"`, `"rmsprop"`, `"momentum"` or `"adam"`.
        learning_rate (`float`, *optional*, defaults to `0.001`):
            Step size α of an edit; above 0.
        beta (`float`, *optional*, defaults to `0.5`):
            Decay β of the running mean of squared gradients, for `"rmsprop"` and `"adam"`; between 0 and 1,
            exclusive.
        momentum (`float`, *optional*, defaults to `0.9`):
            Decay of the running sum (`"momentum"`) or mean (`"adam"`, its β1) of gradients; between 0 and 1,
            exclusive, and above 0.1 for `"adam"`.
        epsilon (`float`, *optional*, defaults to `1e-06`):
            Added to the mean of squared gradients inside the square root; above 0.
        max_steps (`int`, *optional*, defaults to `10`):
            The most steps that an edit may take (the paper's k); at least 1.
        length_penalty (`float`, *optional*):
            Exponent λ of the length that a translation's log-probability is divided by: 0 is the paper's
            log-probability, 1 the mean per token. `None` takes the model's `generation_config.length_penalty`, so
            that an edit that holds and beam search rank translations alike.
        num_alternatives (`int`, *optional*, defaults to `32`):
            How many alternative translations (the paper's k = 32 for translation) a target is made to outrank, at
            most; at least 1.
        target_modules (`str` or `list[str]`, *optional*):
            Which modules inside the edited layers move: names (`"fc1"`, matched as the end of a module's path), or
            one regular expression that a module's whole path in the model matches. `None` takes all.
        exclude_modules (`str` or `list[str]`, *optional*):
            Modules inside the edited layers that stay, matched as in `target_modules`.
        layers_to_transform (`int` or `list[int]`, *optional*, defaults to `-1`):
            Decoder layers that move; a negative number counts from the end, −1 is the final layer.
        checkpoint_edits (`bool`, *optional*, defaults to `False`):
            Whether training keeps only the parameters that each step of an edit starts from, and takes the step again
            in the backward pass: less memory for many steps, and little more time.
        learn_coefficients (`bool`, *optional*, defaults to `True`):
            Whether training also learns the optimizer's own coefficients (`learning_rate`, `beta`, `momentum`).
        c_edit (`float`, *optional*, defaults to `1.0`):
            Weight of the edit loss in the objective (paper, eq. 2), against the *mean* token loss; at least 0. The
            authors' 100 stands against a token loss summed over a batch, so it is `100 / tokens in a batch` here.
        c_loc (`float`, *optional*, defaults to `10.0`):
            Weight of the locality loss in the objective, measured like `c_edit`.
        base_loss (`str`, *optional*, defaults to `"cross_entropy"`):
            First term of the objective: `"cross_entropy"` of the references, or `"distillation"`, the KL divergence
            from the original model's predictions (paper, section 4.3).

    Raises:
        EditableValueError: if a value is out of range.

    Example:

    ```python
    >>> from hf_editable import EditConfig

    >>> EditConfig(learning_rate=3e-4, layers_to_transform=[-2, -1], target_modules=["fc1", "fc2"]).optimizer
    'rmsprop'
    ```
    """

    editor: str = DEFAULT_EDITOR
    editor_options: dict[str, Any] | None = field(default=None, hash=False)
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    beta: float = 0.5
    momentum: float = 0.9
    epsilon: float = 1e-6
    max_steps: int = 10
    length_penalty: float | None = None
    num_alternatives: int = 32
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] = -1
    checkpoint_edits: bool = False
    learn_coefficients: bool = True
    c_edit: float = 1.0
    c_loc: float = 10.0
    base_loss: str = "cross_entropy"

    def __post_init__(self):
        if not isinstance(self.editor, str) or not self.editor:
            raise EditableValueError(f"editor={self.editor!r}: it must be the name of an editor, such as 'gradient'.")
        options = {} if self.editor_options is None else self.editor_options
        if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
            raise EditableValueError(f"editor_options={options!r}: it must be a dict of settings by name, or None.")
        for name, kind in (("optimizer", EditOptimizer), ("base_loss", BaseLoss)):
            object.__setattr__(self, name, choice(kind, name, getattr(self, name)))
        smallest_momentum = 0.1 if self.optimizer == EditOptimizer.ADAM.value else 0.0
        self._check_number("learning_rate", self.learning_rate > 0, "a number above 0, such as 1e-3")
        self._check_number("epsilon", self.epsilon > 0, "a number above 0, such as 1e-6")
        self._check_number("beta", 0 < self.beta < 1, "a number between 0 and 1, such as 0.5")
        self._check_number(
            "momentum",
            smallest_momentum < self.momentum < 1,
            f"a number between {smallest_momentum:g} and 1, such as 0.9",
        )
        self._check_number("c_edit", self.c_edit >= 0, "0 or a number above it")
        self._check_number("c_loc", self.c_loc >= 0, "0 or a number above it")
        for name in ("max_steps", "num_alternatives"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise EditableValueError(f"{name}={value!r}: it must be a whole number, 1 or more.")
        if self.length_penalty is not None:
            self._check_number("length_penalty", True, "a finite number, or None for the model's own")

    def _check_number(self, name: str, in_range: bool, allowed: str) -> None:
        value = getattr(self, name)
        if not in_range or not math.isfinite(value):
            raise EditableValueError(f"{name}={value!r}: it must be {allowed}.")

    def replace(self, **overrides: Any) -> "EditConfig":
        """
        A copy of this configuration with some fields changed.

        Of an editor with settings of its own, these may be given by name too, and go to `editor_options`. Another
        editor does not take over those of the last one.

        Raises:
            EditableTypeError: if a name is not a field of `EditConfig`, and the editor can have none of its own.
        """
        known = [item.name for item in dataclasses.fields(self)]
        own = {name: value for name, value in overrides.items() if name not in known}
        editor = overrides.get("editor", self.editor)
        if own and editor == DEFAULT_EDITOR:
            raise EditableTypeError(f"EditConfig has no {', '.join(sorted(own))}. It has: {', '.join(known)}.")
        kept = self.editor_options if editor == self.editor else None
        options = {**(overrides.get("editor_options", kept) or {}), **own} or None
        fields = {name: value for name, value in overrides.items() if name in known}
        return dataclasses.replace(self, **{**fields, "editor_options": options})

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a JSON-serialisable dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EditConfig":
        """Read what `to_dict` wrote; keys of a newer version are left out with a warning."""
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            logger.warning(f"EditConfig: ignoring {', '.join(unknown)}, written by another version of hf_editable.")
        return cls(**{name: value for name, value in values.items() if name in known})


def choice(kind: type[ExplicitEnum], name: str, value: str) -> str:
    """
    The plain string of one of the members of `kind`; `name` is what is being chosen.

    Raises:
        EditableValueError: if there is no such member.
    """
    try:
        return kind(value).value
    except ValueError as error:
        allowed = ", ".join(repr(member.value) for member in kind)
        raise EditableValueError(f"{name}={value!r}: choose one of {allowed}.") from error
