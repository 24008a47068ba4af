"""Write an edit of a store, or all of them as one, to a folder of its own: a patch to apply, share or upload.

hf-editable export --store edits --output_dir patch
"""

from dataclasses import dataclass, field

from ..shared.running import parse_arguments, run_main, tell


@dataclass
class ExportArguments:
    """What to write, and where."""

    id: str | None = field(
        init=False, default=None, metadata={"nargs": "?", "help": "Edit to write. Default: all, as one patch."}
    )
    store: str = field(metadata={"help": "Folder of the store."})
    output_dir: str = field(metadata={"help": "Folder for the patch."})
    with_earlier: bool = field(
        default=False,
        metadata={
            "help": "Write the edits before it too, so that the patch fits the model without any edits. Otherwise it "
            "fits the model that has them."
        },
    )


def _export(argv: list[str] | None) -> None:
    (arguments,) = parse_arguments([ExportArguments], argv, __doc__)
    from ...operations.store.edit_store import EditStore

    store = EditStore.open(arguments.store)
    patch = store.export(arguments.output_dir, arguments.id, with_earlier=arguments.with_earlier)
    tell(
        f"Written: {arguments.output_dir}, for a model with fingerprint {patch.base_fingerprint}",
        output_dir=arguments.output_dir,
        base_fingerprint=patch.base_fingerprint,
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable export`; returns the exit code."""
    return run_main(_export, argv)
