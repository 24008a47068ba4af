"""What other packages add: modules that their entry points name, imported when they are first needed."""

import functools
from importlib.metadata import entry_points

from ..errors import EditableImportError


@functools.cache
def load_plugins(group: str) -> tuple[str, ...]:
    """
    Import the modules that installed packages name in a group of entry points, once.

    Args:
        group (`str`): the group, such as `hf_editable.editors`. What its modules register is known from then on.

    Returns:
        `tuple[str, ...]`: the names of the entry points.

    Raises:
        EditableImportError: if one cannot be imported; it names the entry point.
    """
    found = entry_points(group=group)
    for each in found:
        try:
            each.load()
        except Exception as error:  # whatever another package's code raises
            raise EditableImportError(
                f"The entry point {each.name!r} ({each.value}) of the group {group} cannot be loaded: {error!r}. "
                "Repair or uninstall its package."
            ) from error
    return tuple(each.name for each in found)
