"""Sequence-to-sequence models that can be edited, and trained to be edited."""

import functools
import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ..checks import checked
from ..configuration import EditConfig
from ..data.references import References
from ..editors.problems.translation_problem import JointEditProblem, TranslationEditProblem
from ..editors.protocol import Editor
from ..editors.registry import make_editor
from ..editors.result import EditResult, edit_result
from ..errors import EditableTypeError, EditableValueError
from ..hub.model_card import MeasuredEdits
from ..hub.transfer import pin_revision
from ..models.families import freeze_computed_positions
from ..models.layers import edited_parameters, find_decoder_layers
from ..patches.application import ChangedModel, lock, working_copy
from ..patches.patch import EditPatch
from ..tail.decoder_tail import Tail
from .checkpoints import attach_editor, load_editor, push_checkpoint, save_checkpoint, stored_edit_config
from .objective import EditableSeq2SeqLMOutput, editable_objective


class EditableMixin:
    """
    Adds edits and the training objective for editability to a sequence-to-sequence model class of transformers.

    Mix it in before the model class; [`AutoEditableModelForSeq2SeqLM`] does so for any checkpoint.

    Example:

    ```python
    >>> from transformers import MarianMTModel

    >>> from hf_editable import EditableMixin


    >>> class EditableMarianMTModel(EditableMixin, MarianMTModel):
    ...     pass
    ```
    """

    # `forward` divides by `num_items_in_batch` itself, which Trainer asks of models that say so.
    accepts_loss_kwargs = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "forward" not in cls.__dict__:
            cls.forward = _with_joint_signature(cls)

    def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        if self.device.type != "meta":  # `from_pretrained` builds on meta, and attaches the editor itself
            self.edit_config = stored_edit_config(config)

    @classmethod
    def from_pretrained(cls, *args: Any, edit_config: EditConfig | None = None, **kwargs: Any) -> "EditableMixin":
        """
        Load a checkpoint as any other class of transformers does.

        Args:
            edit_config ([`EditConfig`], *optional*): `None` takes the checkpoint's own, or the defaults.
            args, kwargs: see [`~transformers.PreTrainedModel.from_pretrained`].
        """
        place = args[0] if args else kwargs["pretrained_model_name_or_path"]
        commit = pin_revision(place, kwargs)
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config._commit_hash = commit
        freeze_computed_positions(model)
        attach_editor(model, place, edit_config, kwargs)
        return loaded

    @classmethod
    def base_class(cls) -> type[PreTrainedModel]:
        """The transformers class beneath this one, which its checkpoints are saved as."""
        return next(
            each for each in cls.__mro__ if issubclass(each, PreTrainedModel) and not issubclass(each, EditableMixin)
        )

    @property
    def edit_config(self) -> EditConfig:
        """The configuration of edits, with the editor's coefficients as training has left them."""
        return self._edit_config.replace(**self.editor.coefficients())

    @edit_config.setter
    @checked
    def edit_config(self, config: EditConfig) -> None:
        find_decoder_layers(self)
        self._edit_config = config
        self.editor = make_editor(config, self).to(self.device)

    @checked
    def load_editor_state(self, folder: str | os.PathLike) -> None:
        """
        Set the editor, its coefficients and its own tensors, to the one saved in a checkpoint folder, in place, so
        that optimizers go on holding it.

        Raises:
            EditableFileError: if the folder's `config.json` holds no edit configuration, or tensors are missing.
        """
        load_editor(self, folder)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as the base class does; not while another thread has other values in the model's weights."""
        with lock(self):
            return super().generate(*args, **kwargs)

    def forward(
        self,
        *args: Any,
        edit_input_ids: Tensor | None = None,
        edit_attention_mask: Tensor | None = None,
        edit_labels: Tensor | None = None,
        edit_alternative_labels: Tensor | None = None,
        edit_prefix_labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        reference_logits: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        num_edits_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> EditableSeq2SeqLMOutput:
        """
        The base class's forward pass; with edits, the whole objective `L_base + c_edit·L_edit + c_loc·L_loc`.

        Args:
            args, kwargs: of the base class. Without the arguments below, the pass is exactly the base class's.
            edit_input_ids (`torch.LongTensor` of shape `(edits, source_length)`, *optional*): sources to edit.
            edit_attention_mask (`torch.LongTensor` of shape `(edits, source_length)`, *optional*): their mask.
            edit_labels (`torch.LongTensor` of shape `(edits, target_length)`, *optional*): targets.
            edit_alternative_labels (`torch.LongTensor` of shape `(edits, alternatives, length)`, *optional*):
                alternative translations of each source, −100 on padding.
            edit_prefix_labels (`torch.LongTensor` of shape `(edits, prefixes, length)`, *optional*):
                prefixes that the target's own are to outrank, −100 on padding.
            label_smoothing (`float`, *optional*, defaults to `0.0`): of the base cross-entropy.
            reference_logits (`torch.Tensor` of shape `(batch, length, vocabulary)`, *optional*):
                predictions of the original model. If given, the base loss is the KL divergence from them.
            num_items_in_batch (`int`, *optional*):
                What sums over tokens are divided by; by default this batch's number of target tokens.
            num_edits_in_batch (`int`, *optional*):
                What sums over edits are divided by; by default this batch's number of edits.

        Returns:
            [`EditableSeq2SeqLMOutput`].
        """
        edits = (edit_input_ids, edit_attention_mask, edit_labels, edit_alternative_labels, edit_prefix_labels)
        own = (*edits, reference_logits, num_items_in_batch)
        if all(value is None for value in own) and label_smoothing == 0.0:
            return super().forward(*args, **kwargs)
        return editable_objective(
            self,
            functools.partial(super().forward, *args),
            kwargs,
            edits=edits,
            label_smoothing=label_smoothing,
            reference_logits=reference_logits,
            num_items=num_items_in_batch,
            num_edits=num_edits_in_batch,
        )

    @checked
    def edit(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        alternative_labels: Tensor | None = None,
        prefix_labels: Tensor | None = None,
        references: References | None = None,
        **overrides: Any,
    ) -> EditResult:
        """
        Find an edit after which the target outranks every alternative. The model itself is never changed.

        Args:
            input_ids (`torch.LongTensor` of shape `(1, source_length)`): the source.
            attention_mask (`torch.LongTensor` of shape `(1, source_length)`, *optional*): its mask.
            labels (`torch.LongTensor` of shape `(1, target_length)`): the wanted translation, ending in EOS.
            alternative_labels (`torch.LongTensor` of shape `(1, alternatives, length)`):
                translations to outrank, −100 on padding.
            prefix_labels (`torch.LongTensor` of shape `(1, prefixes, length)`, *optional*):
                prefixes that the target's prefixes of the same lengths are to outrank, −100 on padding.
            references ([`References`], *optional*): sentences that are to stay so, for editors that need them.
            overrides (*optional*):
                fields of [`EditConfig`] to change for this edit, such as `editor="kl"`, or settings of that editor.

        Returns:
            [`EditResult`], with `success=False` if `max_steps` steps were not enough.

        Raises:
            EditableValueError:
                on empty sources or targets, when no alternative differs from the target, when there is no such
                editor, or it needs references.
            NonFiniteEditError: if `l_e` becomes NaN or infinite.
        """
        edit = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "alternative_labels": alternative_labels,
            "prefix_labels": prefix_labels,
        }
        return self.edit_jointly([edit], references, **overrides)

    @checked
    def edit_jointly(
        self, edits: Sequence[Mapping[str, Tensor]], references: References | None = None, **overrides: Any
    ) -> EditResult:
        """
        Find one edit after which every target outranks all of its alternatives. The model itself is never changed.

        Args:
            edits (`Sequence[dict[str, torch.Tensor]]`): arguments of `edit`, for each of the corrections.
            references ([`References`], *optional*): as in `edit`.
            overrides (*optional*): as in `edit`.

        Returns:
            [`EditResult`]; its losses are means of the `l_e` that are above 0, or the largest if none is.

        Raises:
            EditableValueError: if there are no edits, and as `edit` does.
            NonFiniteEditError: if an `l_e` becomes NaN or infinite.
        """
        editor = self.editor_with(**overrides)
        check_references(editor, references)
        # What other threads do to the model meanwhile is not in the edit.
        working = working_copy(self, edited_parameters(self, editor.config))
        problem = working.joint_problem(edits, references, **overrides)
        with torch.inference_mode(False), torch.enable_grad():
            return edit_result(working, editor(problem), editor.config.editor, problem.length_penalty)

    def editor_with(self, **overrides: Any) -> Editor:
        """
        The model's editor, with some fields of [`EditConfig`] changed; another of the same family has its tensors.

        Raises:
            EditableValueError: if there is no such editor, or a changed setting is of editors of another size.
        """
        if not overrides:
            return self.editor
        config = self.edit_config.replace(**overrides)
        editor = make_editor(config, self).to(self.device)
        if config.editor == self._edit_config.editor and (tensors := self.editor.own_tensors()):
            try:
                editor.load_own_tensors(tensors)
            except RuntimeError as error:
                raise EditableValueError(
                    f"{overrides} cannot be changed for one edit: the editor's own tensors do not fit then ({error}). "
                    "Set edit_config, which makes a new editor."
                ) from error
        return editor

    def joint_problem(
        self, edits: Sequence[Mapping[str, Tensor]], references: References | None = None, **overrides: Any
    ) -> TranslationEditProblem | JointEditProblem:
        """What `edit_jointly` solves: `l_e` as a function of the edited parameters. See there for the arguments."""
        if not edits:
            raise EditableValueError("There are no edits to make; give at least one.")
        config = self.edit_config.replace(**overrides)
        with torch.inference_mode(False):
            tail = Tail(self, config)
            problems = [self.edit_problem(tail, config=config, references=references, **edit) for edit in edits]
        return problems[0] if len(problems) == 1 else JointEditProblem(problems)

    def edit_problem(
        self,
        tail: Tail,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        alternative_labels: Tensor | None = None,
        prefix_labels: Tensor | None = None,
        *,
        config: EditConfig,
        **options: Any,
    ) -> TranslationEditProblem:
        """The problem of one edit of a tail; see [`TranslationEditProblem`] for the options."""
        return TranslationEditProblem(
            tail,
            input_ids,
            attention_mask,
            labels,
            None if alternative_labels is None else alternative_labels[:, : config.num_alternatives],
            prefix_labels,
            length_penalty=self.edit_length_penalty(config),
            **options,
        )

    def edit_length_penalty(self, config: EditConfig | None = None) -> float:
        """λ of the scores that edits compare: the configuration's, else that of the model's beam search."""
        config = self._edit_config if config is None else config
        if config.length_penalty is not None:
            return config.length_penalty
        generation = getattr(self.generation_config, "length_penalty", None)
        return 1.0 if generation is None else generation

    @checked
    def edited(self, patch: EditPatch) -> AbstractContextManager["EditableMixin"]:
        """
        The edited model inside the block, the original after it, bit for bit, also after an exception. Patches that
        are applied inside the block are taken back too, and other threads that edit or translate wait for its end.
        """
        return ChangedModel(self, functools.partial(patch.apply, self))

    def save_pretrained(
        self, save_directory: str | os.PathLike, *, report: MeasuredEdits | None = None, **kwargs: Any
    ) -> None:
        """
        Save a checkpoint that vanilla transformers loads as the base class; the edit configuration, with the learned
        coefficients, is in its `config.json`. A card is written beside it, unless there is one that a person wrote.

        Args:
            save_directory (`str`): folder to write.
            report ([`EditReport`], *optional*): what edits of this model came to, for its card.
            kwargs: see [`~transformers.PreTrainedModel.save_pretrained`]; with `push_to_hub=True`, also `repo_id`, by
                default the folder's name, and the arguments of `push_to_hub`.

        Raises:
            EditableFileError: if `save_directory` is a file.
        """
        save_checkpoint(self, save_directory, report, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        report: MeasuredEdits | None = None,
        commit_message: str = "Upload model",
        max_shard_size: int | str = "50GB",
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> CommitInfo:
        """
        Upload the model to the Hub, creating the repository if needed, with a card. One there that a person wrote is
        kept.

        Args:
            repo_id (`str`): `user/name` of the repository.
            report ([`EditReport`], *optional*): what edits of this model came to, for its card.
            commit_message (`str`, *optional*, defaults to `"Upload model"`): the commit's message.
            max_shard_size (`str`, *optional*, defaults to `"50GB"`): the largest file of weights.
            tags (`list[str]`, *optional*): further tags of the card.
            kwargs (*optional*): `token`, `private`, `revision`, `create_pr` and `commit_description`, as
                [`~transformers.PreTrainedModel.push_to_hub`] takes them.

        Returns:
            [`~huggingface_hub.CommitInfo`]: the commit; its `oid` is a revision to load the model by.
        """
        return push_checkpoint(self, repo_id, report, commit_message, max_shard_size, tags, **kwargs)


def _with_joint_signature(cls: type[EditableMixin]) -> Any:
    """`EditableMixin.forward` with the base class's arguments in its signature, which Trainer reads."""

    @functools.wraps(EditableMixin.forward)
    def forward(self: EditableMixin, *args: Any, **kwargs: Any) -> EditableSeq2SeqLMOutput:
        return EditableMixin.forward(self, *args, **kwargs)

    base = inspect.signature(cls.base_class().forward).parameters
    own = inspect.signature(EditableMixin.forward).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    joint = [parameter for parameter in base.values() if parameter.kind not in variadic]
    joint += [parameter for name, parameter in own.items() if name != "self" and parameter.kind not in variadic]
    joint.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    forward.__signature__ = inspect.Signature(joint)
    return forward


def check_model(model: Any) -> None:
    """
    Raises:
        EditableTypeError: if the model has no `edit`.
    """
    if not isinstance(model, EditableMixin):
        raise EditableTypeError(
            f"A {type(model).__name__} has no edit(). Load it with AutoEditableModelForSeq2SeqLM.from_pretrained."
        )


def check_references(editor: Editor, references: References | None) -> None:
    """
    Raises:
        EditableValueError: if the editor needs references, and there are none.
    """
    if editor.needs_references and references is None:
        raise EditableValueError(
            f"The editor {editor.config.editor!r} takes care of sentences that are to stay as they are. Give "
            "references: pairs of source and target."
        )
