"""The errors that hf_editable raises. Each also is the builtin that a caller would expect to catch."""


class EditableError(Exception):
    """Base class of all errors raised by hf_editable."""


class EditableValueError(EditableError, ValueError):
    """A value is outside what is allowed: an empty sentence, a coefficient out of range, tensors that do not fit."""


class EditRefusedError(EditableValueError):
    """An edit, or the loss of one, costs more than its limits allow. The model and the store are as they were."""


class StaleEditError(EditableValueError):
    """An edit was made from a model that has other edits than its store has now: others came in meanwhile, or went."""


class EditableTypeError(EditableError, TypeError):
    """An object is of the wrong kind: a model that is not an encoder-decoder, a layer list that does not exist."""


class EditableFileError(EditableError, OSError):
    """A file or folder is missing, truncated, malformed, or cannot be written."""


class EditableImportError(EditableError, ImportError):
    """A package that only some functions need is not installed."""


class EditableProcessError(EditableError, RuntimeError):
    """Another of the processes that work together failed. Its message, and its own output, say why."""


class NonFiniteEditError(EditableError, ArithmeticError):
    """The loss or a gradient of an edit became NaN or infinite. The model is as it was."""
