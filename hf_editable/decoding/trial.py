"""Whether a search whose beams share what they have in common finds what `generate` finds, tried on few sources."""

from typing import Protocol

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from ..errors import EditableError
from ..models.families import BEAMS_APART
from ..models.private_names import installed_releases, missing_names
from ..tail.prefix_tree import takes_any_mask
from .encoded_sources import EncodedSources, looks_at_sources


logger = logging.get_logger(__name__)

# Classes of models of which it was said that their searches cannot share.
_WARNED: set[type[PreTrainedModel]] = set()


class SharedSearch(Protocol):
    """The search that is tried: see [`BeamSearch`]."""

    model: PreTrainedModel
    sources: EncodedSources
    scores: Tensor
    narrow: list[int]

    def check_exact(self) -> None: ...

    def translate(self, num_beams: int, max_new_tokens: int) -> Tensor: ...


def follows_generate(search: SharedSearch, num_beams: int, max_new_tokens: int) -> bool:
    """
    Whether a search scores its translations as `generate` does, which equal tokens alone would not show.

    Where that cannot be known before, a class of models for which it does not is warned of, once: with other releases
    of transformers it may have done so, and its decoding is slower now.

    Args:
        search ([`BeamSearch`]): the search, of a few sources.
        num_beams (`int`): beam size.
        max_new_tokens (`int`): the most tokens of a translation.
    """
    reason = known_reason(search.model)
    if reason is not None:
        _tell(search.model, reason)
        return False
    options = {"num_beams": num_beams, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    try:
        search.check_exact()
        search.translate(num_beams, max_new_tokens)
        expected = search.sources.generate(search.model, max_new_tokens, **options).sequences_scores
    except EditableError as error:  # the model cannot be edited either
        _tell(search.model, f"the model cannot be edited ({error})")
        return False
    except Exception as error:  # whatever a decoder raises that has its own ways with caches and masks
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error):
            raise
        _warn(search.model, f"a trial of it raised {error!r}")
        return False
    # Where rounding decides, the two may go different ways.
    compared = [row for row in range(len(expected)) if row not in search.narrow] or slice(None)
    if torch.allclose(search.scores[compared], expected[compared], rtol=1e-4, atol=1e-4):
        return True
    _warn(search.model, "in a trial of it, the scores of translations were not those of generate")
    return False


def trial_length(model: PreTrainedModel, few: int) -> int:
    """The most tokens of translations in a trial: a few, but more than those that the model's settings ask for."""
    settings = model.generation_config
    return max(few, (settings.min_new_tokens or 0) + 1, settings.min_length or 0)


def known_reason(model: PreTrainedModel) -> str | None:
    """Why beams of a model cannot share what they have in common, as far as that is known without a trial."""
    # With fewer bits, rounding would decide too often for the two kinds of search to agree.
    if model.dtype not in (torch.float32, torch.float64):
        return f"rounding in {model.dtype} would decide too often"
    if torch.get_float32_matmul_precision() != "highest":
        return "rounding would decide too often where the precision of float32 products is not 'highest'"
    if model.config.model_type in BEAMS_APART:
        return BEAMS_APART[model.config.model_type]
    if looks_at_sources(model):
        return "its generation settings look at each source, and beams of sources that are done leave the others"
    if not takes_any_mask(model):
        return "its attention cannot be told for each token which others it sees"
    missing = missing_names(f"{__package__}.beams")
    return f"transformers does not have {', '.join(entry.name for entry in missing)}" if missing else None


def _tell(model: PreTrainedModel, reason: str) -> None:
    logger.info(f"Beams of {type(model).__name__} cannot share what they have in common: {reason}.")


def _warn(model: PreTrainedModel, reason: str) -> None:
    if type(model) not in _WARNED:
        _WARNED.add(type(model))
        logger.warning(
            f"The fast beam search cannot be used for {type(model).__name__}: {reason}. Translations go through "
            f"generate instead, which is slower, not wrong. This was found with {installed_releases()}."
        )
