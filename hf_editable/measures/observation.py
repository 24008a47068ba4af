"""What was before an edit and what is after it: all that a measure is computed from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .scored_test_set import ScoredTestSet


if TYPE_CHECKING:
    from ..editors.result import EditResult


@dataclass
class Observation:
    """
    One edit, and what it did to a model.

    An edit that failed, as a value in it was not finite, changed nothing: its `result` is `None`, and the translations
    after it are those before. What an evaluation does not look at is `None` too.

    Args:
        edit (`dict[str, Any]`): its `source`, `target` and `alternatives`.
        result ([`EditResult`], *optional*): what it came to; `None` if it failed.
        milliseconds (`float`): how long it took.
        said (`str`, *optional*): what beam search translates the edit's source to after it; `None` if it failed.
        before ([`ScoredTestSet`], *optional*): the test set, and its translations before the edit.
        translations (`list[str]`, *optional*): those after it.
        divergence (`Callable[[], float]`, *optional*): computes `kl`, once it is asked for.

    Attributes:
        scores (`dict[str, float]`): by a measure's name the corpus score after the edit; see [`CorpusMeasure`].
    """

    edit: Mapping[str, Any]
    result: "EditResult | None"
    milliseconds: float
    said: str | None = None
    before: ScoredTestSet | None = None
    translations: Sequence[str] | None = None
    divergence: Callable[[], float] | None = None
    scores: dict[str, float] = field(default_factory=dict, init=False)

    @cached_property
    def changes(self) -> list[tuple[int, str, str]]:
        """`(index, before, after)` of each translation that the edit changed."""
        return self.before.changes(self.translations)

    @cached_property
    def kl(self) -> float:
        """`KL(model || edited model)` in nats, averaged over the tokens of all references."""
        return self.divergence()
