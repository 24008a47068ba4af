"""Every name that starts with an underscore, belongs to another package, and is used in this one.

Other packages may change such names in any release. So they stand here, each with what it is for and what becomes of
that without it; and a module that uses some asks for them when it is imported, which says at once, and by name, what a
release does not have.
"""

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import torch
import transformers
from transformers.utils import logging

from .. import __version__
from ..errors import EditableImportError


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PrivateName:
    """
    A private name of another package.

    Args:
        holder (`str`): the class or module that has it.
        name (`str`): the name.
        used_in (`tuple[str, ...]`): the modules of this package that use it.
        purpose (`str`): what for.
        without (`str`, *optional*): what happens in a release that does not have it; `None` where nothing works then.
        of_instances (`bool`, *optional*, defaults to `False`):
            whether only instances have it, so that it can be found in the code of the holder's methods only.
    """

    holder: str
    name: str
    used_in: tuple[str, ...]
    purpose: str
    without: str | None = None
    of_instances: bool = False


_GENERATION, _CONFIG, _MODULE = "transformers.GenerationMixin", "transformers.PreTrainedConfig", "torch.nn.Module"
_TRAINER = "transformers.Trainer"
_SLOW_BEAMS = "beam search goes through generate, which is slower, not wrong"
_NAMES_OF_MODELS = ("editors.result", "hub.model_card", "operations.store.edit_store")

PRIVATE_NAMES = (
    PrivateName(_GENERATION, "_get_running_beams_for_next_iteration", ("decoding.beams",),
                "chooses the beams that go on", _SLOW_BEAMS),
    PrivateName(_GENERATION, "_update_finished_beams", ("decoding.beams",),
                "takes in translations that ended", _SLOW_BEAMS),
    PrivateName(_GENERATION, "_check_early_stop_heuristic", ("decoding.beams",),
                "says whether a search can end", _SLOW_BEAMS),
    PrivateName(_GENERATION, "_eos_token_tensor", ("decoding.beams",),
                "the end tokens, which generate notes in its settings", _SLOW_BEAMS, of_instances=True),
    PrivateName(_GENERATION, "_pad_token_tensor", ("decoding.beams",),
                "the padding token, which generate notes in its settings", _SLOW_BEAMS, of_instances=True),
    PrivateName(_GENERATION, "_supports_default_dynamic_cache", ("decoding.encoded_sources",),
                "says whether generate makes a cache of the usual kind",
                "keys and values of the source follow the beams, which is slower, not wrong"),
    PrivateName(_GENERATION, "_reorder_cache", ("decoding.encoded_sources",),
                "what models have that move their cache in a way of their own",
                "keys and values of the source follow the beams, which is slower, not wrong", of_instances=True),
    PrivateName(_CONFIG, "_attn_implementation", ("tail.prefix_tree",),
                "the kind of attention, which prefixes side by side replace by their own"),
    PrivateName(_CONFIG, "_name_or_path", ("app.workbench", *_NAMES_OF_MODELS),
                "what a model was loaded from", "edits and cards cannot say what it was", of_instances=True),
    PrivateName(_CONFIG, "_commit_hash", ("modeling.auto", "modeling.mixin", *_NAMES_OF_MODELS),
                "the commit that a model was loaded from", "patches do not say of which commit they are",
                of_instances=True),
    PrivateName("transformers.PreTrainedModel", "_hf_peft_config_loaded", ("models.families",),
                "says that a model has adapters", "models with adapters are not refused"),
    PrivateName(_TRAINER, "_load_from_checkpoint", ("training.editable_trainer",),
                "loads the weights of a run that goes on, and with them the editor's coefficients"),
    PrivateName(_TRAINER, "_load_best_model", ("training.editable_trainer",),
                "loads the best weights at the end, and with them the editor's coefficients"),
    PrivateName(_TRAINER, "_issue_warnings_after_load", ("training.hub_trainer",),
                "warns of weights that a checkpoint does not have", "it warns of those that it need not have"),
    PrivateName("transformers.PreTrainedModel", "_keys_to_ignore_on_save", ("training.hub_trainer",),
                "names weights that are computed, not saved", "trainers warn that checkpoints do not have them"),
    PrivateName(_TRAINER, "_prepare_inputs", ("training.editable_trainer",),
                "moves batches of edits to the model's device"),
    PrivateName(_TRAINER, "_push_from_checkpoint", ("training.hub_trainer",),
                "uploads a checkpoint, and with it the card"),
    PrivateName(_TRAINER, "_remove_unused_columns", ("training.translation_trainer",),
                "drops the columns that the model does not take"),
    PrivateName(_MODULE, "_apply", ("editors.gradient",), "moves coefficients to a device in the precision they have"),
    PrivateName(_MODULE, "_parameters", ("models.private_copies", "tail.copies", "tail.stand_ins"),
                "copies of modules share their tensors", of_instances=True),
    PrivateName(_MODULE, "_modules", ("modeling.checkpoints", "models.private_copies"),
                "copies of modules have copies of their parts", of_instances=True),
    PrivateName(_MODULE, "_buffers", ("models.widened",), "added neurons move with their module", of_instances=True),
    PrivateName(_MODULE, "_non_persistent_buffers_set", ("models.widened",), "added neurons are in no checkpoint",
                of_instances=True),
    PrivateName(_MODULE, "_compiled_call_impl", ("models.private_copies",),
                "copies of compiled modules are not compiled"),
    PrivateName("torch.Tensor", "_version", ("operations.gate.impact",), "counts the changes of a tensor in place"),
    PrivateName("torch", "_C", ("numerics.output_projection",), "has the number of the backward pass"),
    PrivateName("torch._C", "_current_graph_task_id", ("numerics.output_projection",), "tells backward passes apart"),
    PrivateName("accelerate.PartialState", "_shared_state", ("runs.processes",),
                "says whether processes work together, without starting that"),
    PrivateName("datasets.Dataset", "_fingerprint", ("training.hub_trainer",),
                "says which rows a model was trained on", "cards do not say it", of_instances=True),
    PrivateName("sacrebleu.metrics.base.Metric", "_compute_score_from_stats",
                ("measures.corpus_scores", "measures.statistics"), "the score of a sum of statistics"),
    PrivateName("sacrebleu.metrics.base.Metric", "_preprocess_segment", ("measures.corpus_scores",),
                "tokens of a translation"),
    PrivateName("sacrebleu.metrics.base.Metric", "_compute_segment_statistics", ("measures.corpus_scores",),
                "the statistics of one translation"),
    PrivateName("sacrebleu.metrics.base.Metric", "_ref_cache", ("measures.corpus_scores",),
                "the statistics of the references, which are made once", of_instances=True),
)  # fmt: skip


def check_private_names(module: str) -> list[str]:
    """
    Look for the private names that a module uses, when it is imported.

    Args:
        module (`str`): its `__name__`.

    Returns:
        `list[str]`: those that the installed releases do not have, of which each was warned.

    Raises:
        EditableImportError: if they lack one without which nothing works.
    """
    missing = missing_names(module)
    for entry in missing:
        what = f"{entry.holder}.{entry.name}, which {module} uses ({entry.purpose})"
        if entry.without is None:
            raise EditableImportError(
                f"These releases do not have {what}: {installed_releases()}. Install others of them."
            )
        logger.warning(f"These releases do not have {what}, so {entry.without}: {installed_releases()}.")
    return [entry.name for entry in missing]


@functools.cache
def missing_names(module: str) -> tuple[PrivateName, ...]:
    """The private names that a module uses and the installed releases do not have."""
    own = module.removeprefix("hf_editable.")
    return tuple(entry for entry in PRIVATE_NAMES if own in entry.used_in and not is_there(entry))


def is_there(entry: PrivateName) -> bool:
    """Whether the holder has the name, or its methods mention it as one that instances have."""
    holder = _find(entry.holder)
    if hasattr(holder, entry.name) or not entry.of_instances:
        return hasattr(holder, entry.name)
    return any(entry.name == name for base in holder.__mro__ for name in _names_in(base))


def installed_releases() -> str:
    """The releases that decide which names there are, for messages."""
    return f"hf_editable {__version__}, torch {torch.__version__}, transformers {transformers.__version__}"


def _find(path: str) -> Any:
    module, _, rest = path.partition(".")
    found = importlib.import_module(module)
    for part in rest.split(".") if rest else ():
        module = f"{module}.{part}"
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(module)
    return found


def _names_in(base: type) -> Iterator[str]:
    yield from getattr(base, "__annotations__", ())
    for value in vars(base).values():
        function = getattr(value, "__func__", value)  # class methods and static ones
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if isinstance(function, FunctionType):
            yield from _names_in_code(function.__code__)


def _names_in_code(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in_code(constant)
        elif isinstance(constant, str):
            yield constant


# Those of the floors below, whose modules cannot import this one.
for _module in ("hub.model_card", "numerics.output_projection", "runs.processes"):
    check_private_names(f"hf_editable.{_module}")
