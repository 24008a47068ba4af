"""Which of many translations outranks a target most, from predictions over the whole vocabulary for few of them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from .output_projection import hidden_gradient
from .scoring import PADDING


# Tokens whose logits are computed after every prefix: the likely ones hold most of the probability.
_FEW = 256
# Rounding moves terms by far less.
_SLACK = 1e-3


class NormalizerBound:
    """
    A lower bound of the log-normalizer `log Σ_v exp z_v` of logits `z = W h + b` from those of a few tokens S:

    `log( Σ_{v ∈ S} exp z_v + exp( H(q) + Σ_{v ∉ S} q_v z_v ) )`

    for any distribution q over the other tokens, by Jensen's inequality. As `Σ q_v z_v` is linear in h, it costs no
    more than the logit of one token.

    Args:
        weight (`torch.Tensor` of shape `(vocabulary, hidden)`): W.
        bias (`torch.Tensor` of shape `(vocabulary,)`, *optional*): b.
        probabilities (`torch.Tensor` of shape `(prefixes, vocabulary)`):
            predictions to choose S and q by: the nearer those to be bounded, the tighter.
        tokens (`torch.LongTensor` of any shape): tokens to be among S.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, probabilities: Tensor, tokens: Tensor):
        likely = probabilities.amax(0).topk(min(_FEW, len(weight))).indices
        self.tokens = torch.cat([likely, tokens.flatten()]).unique()
        rest = probabilities.sum(0).index_fill_(0, self.tokens, 0.0)
        rest = rest / rest.sum().clamp(min=torch.finfo(rest.dtype).tiny)
        self._weight = torch.cat([weight[self.tokens], (rest @ weight)[None]])
        self._bias = self._weight.new_zeros(len(self._weight))
        if bias is not None:
            self._bias += torch.cat([bias[self.tokens], (rest @ bias)[None]])
        self._bias[-1] += torch.special.entr(rest).sum() if bool(rest.any()) else -torch.inf

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            hidden (`torch.Tensor` of shape `(prefixes, hidden)`): h.

        Returns:
            `tuple`: the logits of `tokens`, of shape `(prefixes, tokens)`, and the bounds, of shape `(prefixes,)`.
        """
        logits = linear(hidden, self._weight, self._bias)
        return logits[:, :-1], logits.logsumexp(-1)


class LeadingScores:
    """
    Log-probabilities of translations that give the largest of their terms, and which one it is. Translations that
    cannot be it, as their upper bounds show, are left with these.

    Args:
        projection (`tuple(torch.Tensor, torch.Tensor)`): W and b (or `None`) of the output projection.
        hidden (`torch.Tensor` of shape `(prefixes, hidden)`): what it is given after each prefix.
        places (`torch.LongTensor` of shape `(batch, length)`): the prefix after which each token comes.
        labels (`torch.LongTensor` of shape `(batch, length)`): the tokens, −100 on padding.
        terms (`Callable`): by how much each translation but the first outranks the first, from log-probabilities.
        bound ([`NormalizerBound`], *optional*):
            with all labels among its tokens; `None` makes one from what comes after the first two translations.

    Attributes:
        log_probs (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
        bound ([`NormalizerBound`]): the one given, or a better one for states near these.
    """

    def __init__(
        self,
        projection: tuple[Tensor, Tensor | None],
        hidden: Tensor,
        places: Tensor,
        labels: Tensor,
        terms: Callable[[Tensor], Tensor],
        bound: NormalizerBound | None = None,
    ):
        self._projection, self._hidden, self._places, self._terms = projection, hidden, places, terms
        self._needed = labels != PADDING
        self._tokens = labels.where(self._needed, labels[self._needed][0])
        # Where the predictions after a prefix are, if they are known.
        self._rows = torch.full((len(hidden),), -1, device=hidden.device)
        self._known: list[Tensor] = []
        self._normalizers = hidden.new_zeros(len(hidden))
        is_first = bound is None
        if is_first:
            self._predict(places[:2][self._needed[:2]].unique())
            bound = NormalizerBound(*projection, self._predictions(), self._tokens)
        few, bounds = bound(hidden)
        self._normalizers = torch.where(self._rows < 0, bounds, self._normalizers)
        self._logits = few[places, torch.searchsorted(bound.tokens, self._tokens)]
        self.log_probs = self._search()
        # Of competitors, there are predictions only now.
        self.bound = NormalizerBound(*projection, self._predictions(), self._tokens) if is_first else bound

    def gradient(self) -> Tensor:
        """Derivatives of the largest term with respect to the hidden states, of their shape."""
        with torch.enable_grad():
            log_probs = self.log_probs.detach().requires_grad_()
            (shares,) = torch.autograd.grad(self._terms(log_probs).max(0).values, log_probs)
        counts = self._needed & (shares != 0)
        chosen, places = self._places[counts].unique(return_inverse=True)
        given = (shares[counts], places, self._tokens[counts], self._predictions()[self._rows[chosen]])
        gradient = torch.zeros_like(self._hidden)
        gradient[chosen], _ = hidden_gradient(*given, self._projection[0])
        return gradient

    def predicted(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """
        What comes after the prefixes of exact translations: probabilities, of shape `(tokens, vocabulary)`, and the
        log-probabilities of their own tokens.
        """
        needed = self._needed[rows]
        return self._predictions()[self._rows[self._places[rows][needed]]], self.log_probs[rows][needed]

    def _predictions(self) -> Tensor:
        return self._known[0] if len(self._known) == 1 else torch.cat(self._known)

    def _predict(self, chosen: Tensor) -> None:
        """Predict the whole vocabulary after some prefixes."""
        start = sum(map(len, self._known))
        self._rows[chosen] = torch.arange(start, start + len(chosen), device=chosen.device)
        logits = linear(self._hidden[chosen], *self._projection)
        self._known.append(logits.softmax(-1))
        self._normalizers[chosen] = logits.amax(-1) - self._known[-1].amax(-1).log()

    def _search(self) -> Tensor:
        wanted = torch.zeros(len(self._places), dtype=torch.bool, device=self._places.device)
        while True:
            log_probs = (self._logits - self._normalizers[self._places]).where(self._needed, 0.0)
            values = self._terms(log_probs)
            known = ((self._rows[self._places] >= 0) | ~self._needed).all(1)
            best = values[known[1:]].max() - _SLACK if bool(known[1:].any()) else values.max()
            wanted[0], wanted[1:] = True, values >= best
            wanted &= ~known
            if not bool(wanted.any()):
                return log_probs
            chosen = self._places[wanted][self._needed[wanted]].unique()
            self._predict(chosen[self._rows[chosen] < 0])
