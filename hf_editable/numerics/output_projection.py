"""Log-probabilities inside edits that are trained through, with the gradient of the output projection in one sum."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import EditableTypeError


# Numbers in the factors that wait to be multiplied.
_MOST_WAITING = 6_400_000


class TrainedProjection:
    """
    The output projection for edits that are differentiated twice.

    Each step of an edit has two gradients of the size of the whole weight. They are sums of outer products over a few
    prefixes; here these are added up in place, and reach the weight at the end of the backward pass.

    Args:
        weight (`torch.nn.Parameter` of shape `(vocabulary, hidden)`): its weight.
    """

    def __init__(self, weight: Tensor):
        self.weight = weight.detach()
        with torch.enable_grad():
            self._handle = _Collected.apply(weight, self)
        self._pass: int | None = None
        self._sum: Tensor | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def log_probs(
        self, hidden: Tensor, places: Tensor, tokens: Tensor, probabilities: Tensor, known: Tensor
    ) -> Tensor:
        """
        Log-probabilities of tokens after prefixes, with a graph.

        Args:
            hidden (`torch.Tensor` of shape `(prefixes, hidden)`): what the projection is given after each prefix.
            places (`torch.LongTensor` of shape `(tokens,)`): the prefix after which each token comes.
            tokens (`torch.LongTensor` of shape `(tokens,)`): the tokens.
            probabilities (`torch.Tensor` of shape `(prefixes, vocabulary)`): what it predicts at those prefixes.
            known (`torch.Tensor` of shape `(tokens,)`): the log-probabilities.
        """
        return _TokenLogProbs.apply(hidden, self._handle, self, places, tokens, probabilities, known)

    def add(self, factors: Sequence[tuple[Tensor, Tensor]], tokens: Tensor, rows: Tensor) -> None:
        """
        Add to the weight's gradient.

        Args:
            factors (`list[tuple[torch.Tensor, torch.Tensor]]`):
                matrices of shapes `(n, vocabulary)` and `(n, hidden)`, whose products are parts of it.
            tokens, rows (`torch.Tensor` of shapes `(m,)` and `(m, hidden)`): what single tokens' rows get besides.
        """
        if not self._handle.requires_grad:
            return
        current = torch._C._current_graph_task_id()
        if self._sum is None or current != self._pass:  # another pass may have ended without asking for this gradient
            self._pass, self._sum, self._waiting = current, torch.zeros_like(self.weight), []
        self._sum.index_add_(0, tokens, rows)
        self._waiting += factors
        if sum(left.numel() for left, _ in self._waiting) >= _MOST_WAITING:
            self._multiply()

    def take(self) -> Tensor | None:
        """The sum of what was added in this backward pass."""
        if torch.is_grad_enabled():
            raise EditableTypeError("The objective has no derivatives of its gradient: leave out create_graph=True.")
        if self._sum is None or self._pass != torch._C._current_graph_task_id():
            return None
        self._multiply()
        total, self._sum = self._sum, None
        return total

    def _multiply(self) -> None:
        if self._waiting:
            left, right = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._sum.addmm_(left.T, right)
            self._waiting = []


class _Collected(torch.autograd.Function):
    """Stands for the weight in the graph, where its gradient arrives after all parts of it were added."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, projection: TrainedProjection) -> Tensor:
        ctx.projection = projection
        ctx.set_materialize_grads(False)
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: None) -> tuple[Tensor | None, None]:
        return ctx.projection.take(), None


_NOTHING = (None,) * 6


class _TokenLogProbs(torch.autograd.Function):
    """`log p_t = z_t − log Σ_v exp z_v` of tokens t, for logits `z = W h + b`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        handle: Tensor,
        projection: TrainedProjection,
        places: Tensor,
        tokens: Tensor,
        probabilities: Tensor,
        known: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(hidden, handle, probabilities, places, tokens)
        ctx.projection = projection
        return known.clone()

    @staticmethod
    def backward(ctx: Any, shares: Tensor) -> tuple[Tensor | None, ...]:
        hidden, handle, probabilities, places, tokens = ctx.saved_tensors
        if torch.is_grad_enabled():  # a step of the edit, through which the training's backward pass will come
            given = (shares, hidden, handle, ctx.projection, probabilities, places, tokens)
            return _HiddenGradient.apply(*given), *_NOTHING
        gradient, whole = hidden_gradient(shares, places, tokens, probabilities, ctx.projection.weight)
        ctx.projection.add([(probabilities, -whole * hidden)], tokens, shares[:, None] * hidden[places])
        return gradient, *_NOTHING


class _HiddenGradient(torch.autograd.Function):
    """`hidden_gradient`, differentiable."""

    @staticmethod
    def forward(
        ctx: Any,
        shares: Tensor,
        hidden: Tensor,
        handle: Tensor,
        projection: TrainedProjection,
        probabilities: Tensor,
        places: Tensor,
        tokens: Tensor,
    ) -> Tensor:
        gradient, whole = hidden_gradient(shares, places, tokens, probabilities, projection.weight)
        ctx.projection = projection
        ctx.save_for_backward(shares, hidden, whole, probabilities, places, tokens)
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares, hidden, whole, probabilities, places, tokens = ctx.saved_tensors
        weight = ctx.projection.weight
        along = gradient @ weight.T
        mean = torch.linalg.vecdot(probabilities, along)
        of_shares = torch.linalg.vecdot(gradient[places], weight[tokens]) - mean[places]
        # `whole` scales the small factors: those of the vocabulary's size are made once and not passed over again.
        change = along.sub_(mean[:, None]).mul_(probabilities)
        factors = [(probabilities, -whole * gradient), (change, -whole * hidden)]
        ctx.projection.add(factors, tokens, shares[:, None] * gradient[places])
        return of_shares, (change @ weight).mul_(-whole), None, None, None, None, None


def hidden_gradient(
    shares: Tensor, places: Tensor, tokens: Tensor, probabilities: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """
    The gradient of `Σ_t u_t log p_t` with respect to what the output projection W is given: `Σ_t u_t (W_t − p W)`.

    Args:
        shares (`torch.Tensor` of shape `(tokens,)`): u.
        places (`torch.LongTensor` of shape `(tokens,)`): the prefix after which each token comes.
        tokens (`torch.LongTensor` of shape `(tokens,)`): the tokens.
        probabilities (`torch.Tensor` of shape `(prefixes, vocabulary)`): p.
        weight (`torch.Tensor` of shape `(vocabulary, hidden)`): W.

    Returns:
        `tuple`: the gradient, of shape `(prefixes, hidden)`, and `Σ_t u_t` of each prefix's tokens, `(prefixes, 1)`.
    """
    whole = probabilities.new_zeros(len(probabilities)).index_add_(0, places, shares)[:, None]
    each = shares[:, None] * weight[tokens]
    return (probabilities @ weight).mul_(-whole).index_add_(0, places, each), whole
