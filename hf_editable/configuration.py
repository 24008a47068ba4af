"""What is edited, with which optimizer, and how training for editability is weighted."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers.utils import ExplicitEnum, logging

from .checks import BEAMS, Numbers
from .errors import EditableTypeError, EditableValueError


logger = logging.get_logger(__name__)

DEFAULT_EDITOR = "gradient"
# A configuration may come with a stranger's checkpoint. Beyond these limits it asks for hours, or for all memory.
_MOST_ITEMS, _LONGEST_PATTERN = 1_000, 1_000
_ABOVE_0, _SHARE = Numbers(0, whole=False, above=True), Numbers(0, 1, whole=False, above=True, below=True)
_NUMBERS = {
    "learning_rate": _ABOVE_0,
    "epsilon": _ABOVE_0,
    "beta": _SHARE,
    "momentum": _SHARE,
    "c_edit": Numbers(0, whole=False),
    "c_loc": Numbers(0, whole=False),
    "max_steps": Numbers(1, 10_000),
    "num_alternatives": BEAMS,
    "length_penalty": Numbers(-100, 100, whole=False),
}


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
            The most steps that an edit may take (the paper's k); from 1 to 10,000.
        length_penalty (`float`, *optional*):
            Exponent λ of the length that a translation's log-probability is divided by: 0 is the paper's
            log-probability, 1 the mean per token; from -100 to 100. `None` takes the model's
            `generation_config.length_penalty`, so that an edit that holds and beam search rank translations alike.
        num_alternatives (`int`, *optional*, defaults to `32`):
            How many alternative translations (the paper's k = 32 for translation) a target is made to outrank, at
            most; from 1 to 1,000.
        target_modules (`str` or `list[str]`, *optional*):
            Which modules inside the edited layers move: names (`"fc1"`, matched as the end of a module's path), or
            one regular expression that a module's whole path in the model matches, as in PEFT. `None` takes all.
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
        EditableValueError: if a value is of a wrong type or out of range.

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
            raise EditableValueError(f"editor={self.editor!r:.200}: it must be an editor's name, such as 'gradient'.")
        options = {} if self.editor_options is None else self.editor_options
        if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
            raise EditableValueError(f"editor_options={options!r:.200}: it must be a dict of settings, or None.")
        for name, kind in (("optimizer", EditOptimizer), ("base_loss", BaseLoss)):
            object.__setattr__(self, name, choice(kind, name, getattr(self, name)))
        numbers = dict(_NUMBERS)
        if self.optimizer == EditOptimizer.ADAM.value:
            numbers["momentum"] = dataclasses.replace(_SHARE, least=0.1)
        if self.length_penalty is None:
            del numbers["length_penalty"]
        for name, allowed in numbers.items():
            allowed.check(f"{name}=", getattr(self, name))
        several = f"or a list of up to {_MOST_ITEMS:,}"
        self._check("checkpoint_edits", _is_bool, "True or False")
        self._check("learn_coefficients", _is_bool, "True or False")
        for name in ("target_modules", "exclude_modules"):
            allowed = f"a regular expression, {several} names, of up to {_LONGEST_PATTERN:,} characters, or None"
            self._check(name, _are_patterns, allowed)
        self._check("layers_to_transform", _are_layers, f"a whole number, {several} of them")

    def _check(self, name: str, is_allowed: Callable[[Any], bool], allowed: str) -> None:
        value = getattr(self, name)
        if not is_allowed(value):
            raise EditableValueError(f"{name}={value!r:.200}: it must be {allowed}.")

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
        """
        Read what `to_dict` wrote; keys of a newer version are left out with a warning.

        Raises:
            EditableValueError: if it is no dictionary, or a value is of a wrong type or out of range.
        """
        if not isinstance(values, dict):
            raise EditableValueError(f"{values!r:.200} is no configuration of edits: it must be a dict of its fields.")
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
        raise EditableValueError(f"{name}={value!r:.200}: choose one of {allowed}.") from error


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_patterns(value: Any) -> bool:
    patterns = [value] if isinstance(value, str) else value
    return value is None or (
        isinstance(patterns, list | tuple)
        and len(patterns) <= _MOST_ITEMS
        and all(isinstance(each, str) and 0 < len(each) <= _LONGEST_PATTERN for each in patterns)
    )


def _are_layers(value: Any) -> bool:
    layers = [value] if _is_whole(value) else value
    return isinstance(layers, list | tuple) and len(layers) <= _MOST_ITEMS and all(map(_is_whole, layers))
