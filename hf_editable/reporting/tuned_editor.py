"""The outcome of tuning an editor."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass
class TriedSetting:
    """
    What the validation edits came to with one setting of an editor's coefficients.

    Args:
        coefficients (`dict[str, float]`): the setting: `learning_rate`, and `beta` and `momentum` where they count.
        success_rate (`float`): share of the edits that hold.
        kl (`float`, *optional*):
            `KL(model || edited model)` in nats a token of the validation references, averaged over the edits that
            did not fail; `None` if all did.
        mean_loss (`float`, *optional*): mean of `l_e` after these edits.
        mean_steps (`float`, *optional*): mean of the steps that they took.
        failed_edits (`int`): edits that failed: a value was not finite. They do not count as successes.
        milliseconds_median (`float`, *optional*): time of one of them.
    """

    coefficients: dict[str, float]
    success_rate: float
    kl: float | None
    mean_loss: float | None
    mean_steps: float | None
    failed_edits: int
    milliseconds_median: float | None


@dataclass
class TunedEditor:
    """
    The outcome of [`tune_editor`].

    Args:
        chosen ([`TriedSetting`]): the setting to edit with.
        reached (`bool`): whether enough edits succeed with it; if not, with no setting that was tried.
        tried (`list[TriedSetting]`): all settings, in the order in which they were tried.
    """

    chosen: TriedSetting
    reached: bool
    tried: list[TriedSetting]

    def to_dict(self) -> dict[str, Any]:
        """The outcome as a JSON-serialisable dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TunedEditor":
        """Read what `to_dict` wrote."""
        tried = [TriedSetting(**setting) for setting in values["tried"]]
        return cls(TriedSetting(**values["chosen"]), values["reached"], tried)
