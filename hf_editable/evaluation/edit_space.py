"""The space of edits (paper, section 4.2): how many dimensions it has, and how it looks in two."""

import importlib.metadata

import numpy as np
from transformers.utils import logging


logger = logging.get_logger(__name__)

MAX_COMPONENTS = 50


def reduced(matrix: np.ndarray, components: int = MAX_COMPONENTS) -> tuple[np.ndarray, list[float]]:
    """
    Truncated singular value decomposition of a matrix that is not centred, as in scikit-learn's `TruncatedSVD`.

    Args:
        matrix (`np.ndarray` of shape `(edits, sentences)`): what each edit changed.
        components (`int`, *optional*, defaults to 50): the most components.

    Returns:
        `tuple`: the edits in the space of the components, of shape `(edits, components)`, and the share of the
        variance that each component explains.
    """
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    projected = (left * values)[:, :components]
    total = matrix.var(0).sum()
    return projected, (projected.var(0) / total if total > 0 else np.zeros(projected.shape[1])).tolist()


def embed(points: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """
    t-SNE into two dimensions.

    Without scikit-learn (`pip install hf_editable[analysis]`) there is none, with a warning.

    Args:
        points (`np.ndarray` of shape `(edits, components)`): edits.
        seed (`int`, *optional*, defaults to `0`): of the embedding.

    Returns:
        `np.ndarray` of shape `(edits, 2)`; `None` without scikit-learn, for fewer than three edits, or where all are
        the same.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        logger.warning("scikit-learn is not installed, so there is no t-SNE: pip install hf_editable[analysis]")
        return None
    if len(points) < 3 or not np.ptp(points, axis=0).any():
        return None
    # Barnes-Hut takes 3 · perplexity neighbours, which there have to be.
    options = {"perplexity": min(30.0, (len(points) - 1) / 3), "random_state": seed}
    options["init"] = "pca" if points.shape[1] > 1 else "random"
    return TSNE(2, **options).fit_transform(points.astype(np.float64)).astype(np.float64)


def sklearn_version() -> dict[str, str]:
    """The version of scikit-learn by its name; nothing without it."""
    try:
        return {"scikit-learn": importlib.metadata.version("scikit-learn")}
    except importlib.metadata.PackageNotFoundError:
        return {}
