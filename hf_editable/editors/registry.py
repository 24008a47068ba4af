"""
Which editors there are. One file or folder here is one family, which registers itself; so do those of other packages,
when they are imported or by an entry point of the group `hf_editable.editors`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from ..configuration import EditConfig
from ..errors import EditableError, EditableTypeError, EditableValueError
from ..patches.scope import moves_beyond_layers
from ..runs.plugins import load_plugins
from .protocol import Editor


PLUGINS = "hf_editable.editors"


@dataclass(frozen=True)
class Family:
    """
    A family of editors.

    Args:
        name (`str`): what [`EditConfig`], `--editor` and reports call it.
        config_class (`type`, *optional*): a dataclass of settings that are its own; `None` if it has none.
        editor_class (`Callable`):
            takes an [`EditConfig`], an instance of `config_class` and a model (or `None` for both), and gives an
            [`Editor`].
    """

    name: str
    config_class: type | None
    editor_class: Callable[[EditConfig, Any, PreTrainedModel | None], Editor]


_FAMILIES: dict[str, Family] = {}


def register_editor(
    name: str, config_class: type | None, editor_class: Callable[[EditConfig, Any, PreTrainedModel | None], Editor]
) -> None:
    """
    Make a family of editors known: to [`EditConfig`], `model.edit`, [`TranslationEditor`], the commands' `--editor`,
    stores, lists of corrections, the page, evaluation, comparison and tuning.

    Args:
        name (`str`): its name.
        config_class (`type`, *optional*):
            a dataclass of its own settings, with defaults, which checks them in `__post_init__`; `None` if it has
            none. They are given as `EditConfig(editor=name, editor_options={…})`.
        editor_class (`type`): a subclass of [`Editor`].

    Raises:
        EditableValueError: if there is another family of that name, or it is no name.
        EditableTypeError: if `config_class` is no dataclass.

    Example:

    ```python
    >>> from hf_editable.editors import Editor, register_editor

    >>> class Undone(Editor):
    ...     def forward(self, problem, create_graph=False): ...

    >>> register_editor("undone", None, Undone)  # doctest: +SKIP
    >>> model.edit(**edit, editor="undone")  # doctest: +SKIP
    ```
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise EditableValueError(f"{name!r} is no name of an editor. Give letters, digits and underscores.")
    if config_class is not None and not dataclasses.is_dataclass(config_class):
        raise EditableTypeError(f"The settings of {name!r} are {config_class!r}. Give a dataclass, or None.")
    family = Family(name, config_class, editor_class)
    if _FAMILIES.get(name, family) != family:
        raise EditableValueError(f"There is another editor {name!r}. Choose another name.")
    _FAMILIES[name] = family
    if getattr(editor_class, "moved", Editor.moved) is not Editor.moved:
        moves_beyond_layers(name)


def unregister_editor(name: str) -> None:
    """Make a family unknown again, as a test does that has registered one."""
    _FAMILIES.pop(name, None)


def editor_names() -> list[str]:
    """The families of editors, those of other packages last."""
    load_plugins(PLUGINS)
    return list(_FAMILIES)


def editor_family(name: str) -> Family:
    """
    A family by its name.

    Raises:
        EditableValueError: if there is none.
    """
    if name not in _FAMILIES and name not in (known := editor_names()):
        raise EditableValueError(
            f"editor={name!r}: choose one of {', '.join(map(repr, known))}. One of another package is there once that "
            "is imported or installed."
        )
    return _FAMILIES[name]


def editor_options(config: EditConfig) -> Any:
    """
    The family's own settings; `None` if it has none.

    Raises:
        EditableValueError: if there is no such family, or a value is out of range.
        EditableTypeError: if a setting is none of the family's.
    """
    family, given = editor_family(config.editor), config.editor_options or {}
    known = [] if family.config_class is None else [item.name for item in dataclasses.fields(family.config_class)]
    if unknown := sorted(given.keys() - set(known)):
        has = f"It has: {', '.join(known)}." if known else "It has none of its own."
        raise EditableTypeError(
            f"The editor {config.editor!r} has no setting {', '.join(unknown)}, and EditConfig has none. {has}"
        )
    if family.config_class is None:
        return None
    try:
        return family.config_class(**given)
    except (TypeError, ValueError) as error:
        if isinstance(error, EditableError):
            raise
        # Classes compare with numbers what a file may have as a text.
        raise EditableValueError(
            f"editor_options={given!r:.200}: a value is of a wrong type for the editor {config.editor!r} ({error})."
        ) from error


def make_editor(config: EditConfig, model: PreTrainedModel | None = None) -> Editor:
    """
    The editor that a configuration names.

    Args:
        config ([`EditConfig`]): its `editor`, the settings of that family, and the coefficients to begin with.
        model ([`~transformers.PreTrainedModel`], *optional*): the model that it is for.

    Raises:
        EditableValueError, EditableTypeError: as `editor_options` does.
    """
    return editor_family(config.editor).editor_class(config, editor_options(config), model)
