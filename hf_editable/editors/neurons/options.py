"""Settings of edits by cap neurons."""

from dataclasses import dataclass

from transformers.utils import ExplicitEnum

from ...checks import Numbers
from ...configuration import choice


class Metric(ExplicitEnum):
    """How near two states are: by the angle between them, or by one that counts less where text varies more."""

    COSINE = "cosine"
    WHITENED = "whitened"


_SHARE = Numbers(0, 1, whole=False, above=True, below=True)
_NUMBERS = {
    "reach": Numbers(0, 2, whole=False, above=True),
    "patch_below": Numbers(0, 1, whole=False, above=True),
    "confidence": _SHARE,
    "gain": Numbers(1, 10, whole=False),
    "num_references": Numbers(1, 1_000_000),
}


@dataclass(frozen=True)
class NeuronOptions:
    """
    Settings of [`CapNeurons`].

    Args:
        reach (`float`, *optional*):
            The most that a cap reaches from its state: 1 less the cosine at which it ends, or in the whitened metric
            the share of the way to the mean. `None` takes 0.2 with references, and 0.02 without.
        patch_below (`float`, *optional*, defaults to `0.7`):
            tokens of the target that are less probable than this, or not the most probable, get a neuron at first.
        confidence (`float`, *optional*, defaults to `0.97`): the probability that a neuron brings its token to.
        gain (`float`, *optional*, defaults to `2.0`):
            how many times that is added, so that half-way to the edge of its cap a neuron still wins.
        metric (`str`, *optional*, defaults to `"cosine"`):
            `"cosine"`, or `"whitened"`, which needs references and reaches more typing errors and other words, and a
            few more other sentences.
        num_references (`int`, *optional*, defaults to `15000`): how many of the references are used at most.

    Raises:
        EditableValueError: if a number is out of range.
    """

    reach: float | None = None
    patch_below: float = 0.7
    confidence: float = 0.97
    gain: float = 2.0
    metric: str = "cosine"
    num_references: int = 15_000

    def __post_init__(self):
        for name, allowed in _NUMBERS.items():
            if name != "reach" or self.reach is not None:
                allowed.check(f"{name}=", getattr(self, name))
        object.__setattr__(self, "metric", choice(Metric, "metric", self.metric))
