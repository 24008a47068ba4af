"""What single edits of one model did to each test sentence."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.files import read_saved, whole_folder, write_json


ANALYSIS_NAME = "analysis.json"


MATRIX_NAME = "divergences.npy"


@dataclass
class EditAnalysis:
    """
    What single edits of one model did to each test sentence.

    Args:
        summary (`dict[str, Any]`): the measures over all edits, and how they were taken; plain JSON values.
        edits (`list[dict[str, Any]]`):
            of each edit its source and target, whether it succeeded, its mean KL, that on the edited sentence itself
            if it is in the test set, and its place in the t-SNE, if there is one.
        divergences (`np.ndarray` of shape `(edits, sentences)`):
            `KL(model || edited model)` in nats, averaged over the tokens of the sentence's reference.

    Example:

    ```python
    >>> from hf_editable.evaluation import EditAnalysis

    >>> analysis = EditAnalysis.load("analysis/baseline")  # doctest: +SKIP
    >>> analysis.summary["similarity"]["overlap"]["rank_correlation"]  # doctest: +SKIP
    0.41
    ```
    """

    summary: dict[str, Any]
    edits: list[dict[str, Any]]
    divergences: np.ndarray

    def save(self, output_dir: str | os.PathLike) -> None:
        """
        Write `analysis.json` and `divergences.npy`.

        Raises:
            EditableFileError: if `output_dir` is a file.
        """
        with whole_folder(output_dir) as folder:
            write_json(folder / ANALYSIS_NAME, {"summary": self.summary, "edits": self.edits})
            np.save(folder / MATRIX_NAME, self.divergences)

    @classmethod
    def load(cls, output_dir: str | os.PathLike) -> "EditAnalysis":
        """
        Read what `save` wrote.

        Raises:
            EditableFileError: if there is no whole analysis in the folder.
        """

        def build(values: dict[str, Any]) -> "EditAnalysis":
            return cls(values["summary"], values["edits"], np.load(Path(output_dir) / MATRIX_NAME))

        return read_saved(output_dir, ANALYSIS_NAME, build, "EditAnalysis.save")
