"""Which editors there are."""

from ..configuration import EditConfig, EditOptimizer
from .gradient import GradientEditor
from .optimizers import Adam, GradientDescent, Momentum, RMSProp, RProp, ScaledGradientDescent


_EDITORS: dict[str, type[GradientEditor]] = {
    EditOptimizer.GD.value: GradientDescent,
    EditOptimizer.SCALED_GD.value: ScaledGradientDescent,
    EditOptimizer.RPROP.value: RProp,
    EditOptimizer.RMSPROP.value: RMSProp,
    EditOptimizer.MOMENTUM.value: Momentum,
    EditOptimizer.ADAM.value: Adam,
}


def make_editor(config: EditConfig) -> GradientEditor:
    """The editor that `config.optimizer` names, with the configuration's coefficients."""
    return _EDITORS[config.optimizer](config)
