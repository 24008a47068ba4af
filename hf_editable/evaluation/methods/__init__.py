"""Other ways to make an edit."""

from .base import EditMethod, LookupResult, make_edit, method_arguments, method_name
from .verified import VerifiedEditing


__all__ = ["EditMethod", "LookupResult", "VerifiedEditing", "make_edit", "method_arguments", "method_name"]
