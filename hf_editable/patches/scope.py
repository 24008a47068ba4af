"""
Which parameters a patch may change: those of the decoder's layers, unless the family of editors that made it moves
others too. So a patch that says it is an ordinary edit, and replaces embeddings or the encoder, is refused.
"""

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from ..errors import EditableValueError
from ..models.layers import find_decoder_layers


_BEYOND_LAYERS: set[str] = set()


def moves_beyond_layers(editor: str) -> None:
    """Note that edits by a family of editors may move other parameters than those of the decoder's layers."""
    _BEYOND_LAYERS.add(editor)


def widest(editors: Iterable[str | None]) -> str | None:
    """Of families whose edits become one patch, the one whose patches may change most."""
    families = list(dict.fromkeys(editors))
    return next((each for each in families if each in _BEYOND_LAYERS), families[0] if families else None)


def check_scope(model: nn.Module, names: Iterable[str], editor: str | None) -> None:
    """
    Raises:
        EditableValueError: if a patch changes parameters that edits by its family of editors do not move.
    """
    if editor in _BEYOND_LAYERS or not isinstance(model, PreTrainedModel):
        return
    path, _ = find_decoder_layers(model)
    if outside := [name for name in names if not name.startswith(f"{path}.")]:
        raise EditableValueError(
            f"The patch changes {len(outside)} parameters that are none of the decoder's layers ({path}), such as "
            f"{outside[0]!r:.200}, and edits by its editor ({editor!r:.80}) change those layers only. Do not use it, "
            "unless you know who made it and why; an editor of another package is to be imported first."
        )
