"""Changes that stand beside a model's parameters."""

from collections.abc import Mapping

from torch import Tensor


class BesideParameters:
    """What a [`Change`] has in common with others that give no parameter another value."""

    @property
    def names(self) -> list[str]:
        """See [`Change`]."""
        return []

    def values(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See [`Change`]."""
        return {}

    def check_fit(self, name: str, before: Tensor) -> None:
        """See [`Change`]; there is no parameter that it could not fit."""
