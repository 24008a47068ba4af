"""Any sequence-to-sequence checkpoint as an editable model."""

import os
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedModel

from ..checks import checked
from ..configuration import EditConfig
from ..errors import EditableTypeError
from ..hub.transfer import pin_revision
from ..models.families import check_editable, freeze_computed_positions
from ..models.layers import find_decoder_layers
from ..models.private_names import check_private_names
from ..runs.files import settle
from .checkpoints import HUB_NAMES, attach_editor, stored_edit_config
from .editable_classes import editable_class
from .mixin import EditableMixin


check_private_names(__name__)


class AutoEditableModelForSeq2SeqLM:
    """Loads any sequence-to-sequence checkpoint as an editable model."""

    @classmethod
    @checked
    def from_pretrained(
        cls, name_or_path: str | os.PathLike, edit_config: EditConfig | None = None, **kwargs: Any
    ) -> EditableMixin:
        """
        Load a checkpoint, editable or not, from a folder or the Hub.

        Args:
            name_or_path (`str`): folder, or name on the Hub.
            edit_config ([`EditConfig`], *optional*): `None` takes the checkpoint's own, or the defaults.
            kwargs: see [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            EditableTypeError: if the checkpoint is not an encoder-decoder.

        Example:

        ```python
        >>> from hf_editable import AutoEditableModelForSeq2SeqLM

        >>> model = AutoEditableModelForSeq2SeqLM.from_pretrained("Helsinki-NLP/opus-mt-de-en")  # doctest: +SKIP
        ```
        """
        settle(name_or_path)
        commit = pin_revision(name_or_path, kwargs)
        hub_kwargs = {name: kwargs[name] for name in HUB_NAMES if name in kwargs}
        config = kwargs.get("config") or AutoConfig.from_pretrained(
            name_or_path, trust_remote_code=kwargs.get("trust_remote_code"), **hub_kwargs
        )
        _check_seq2seq(config, os.fspath(name_or_path))
        loaded = AutoModelForSeq2SeqLM.from_pretrained(name_or_path, **kwargs)
        model, *info = loaded if isinstance(loaded, tuple) else (loaded,)  # output_loading_info=True
        model.config._commit_hash = commit
        attach_editor(cls._made_editable(model), name_or_path, edit_config, kwargs)
        return (model, *info) if info else model

    @classmethod
    @checked
    def from_config(
        cls, config: PretrainedConfig, edit_config: EditConfig | None = None, **kwargs: Any
    ) -> EditableMixin:
        """A new editable model with random weights; see `from_pretrained` for the arguments and errors."""
        _check_seq2seq(config, type(config).__name__)
        return cls.from_model(AutoModelForSeq2SeqLM.from_config(config, **kwargs), edit_config)

    @classmethod
    @checked
    def from_model(cls, model: nn.Module, edit_config: EditConfig | None = None) -> EditableMixin:
        """
        Make a loaded model editable, in place: the same object, with the same tensors, under an editable class.

        Raises:
            EditableTypeError: if the model is not an encoder-decoder whose decoder is a list of layers.
        """
        check_editable(model)
        if edit_config is None and not isinstance(model, EditableMixin):
            edit_config = stored_edit_config(model.config)
        model = cls._made_editable(model)
        if edit_config is not None:
            model.edit_config = edit_config
        return model

    @classmethod
    def _made_editable(cls, model: PreTrainedModel) -> EditableMixin:
        find_decoder_layers(model)
        freeze_computed_positions(model)
        if not isinstance(model, EditableMixin):
            model.__class__ = editable_class(type(model))
        return model


def _check_seq2seq(config: PretrainedConfig, name: str) -> None:
    if not getattr(config, "is_encoder_decoder", False):
        raise EditableTypeError(
            f"{name!r} is a {config.model_type!r} model, which is not an encoder-decoder. "
            "Use a sequence-to-sequence checkpoint, such as Marian, M2M100, mBART or T5."
        )
