"""The edit of translations as an editor's problem: make a target outrank its alternatives."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...data.references import References
from ...decoding.score_rules import ScoreRules
from ...models.families import beam_search_tokens
from ...numerics.bounds import LeadingScores, NormalizerBound
from ...numerics.gradients import outside_inference, with_gradients
from ...numerics.scoring import PADDING, token_log_probs
from ...tail.decoder_tail import Tail
from ...tail.prefix_tree import takes_prefix_trees
from ...tail.trunk_states import PrefixStates, TrunkStates
from .candidates import _with_prefixes, candidates, check_edit, check_tokens
from .edit_term import EditTerm


class TranslationEditProblem:
    """
    `l_e(θ) = max_i s(y_i|x, θ) − s(y_0|x, θ)` as a function of the edited parameters (paper, section 4.3).

    The maximum may also run over prefixes p_j that the target's own prefix of the same length has to outrank,
    `s(p_j|x, θ) − s(y_0[:|p_j|] |x, θ)`: beam search finds a target only if its prefixes stay in the beam
    ([Wiseman and Rush, 2016](https://arxiv.org/abs/1606.02960)).

    All rows are scored without a graph; only the target and the alternative or prefix with the largest term, through
    which the gradient of the maximum flows, are scored with one.

    Args:
        tail ([`Tail`]): what is edited.
        input_ids (`torch.LongTensor` of shape `(1, source_length)`): the source x.
        attention_mask (`torch.LongTensor` of shape `(1, source_length)`, *optional*): its mask.
        labels (`torch.LongTensor` of shape `(1, target_length)`): the target y_0, −100 on padding.
        alternative_labels (`torch.LongTensor` of shape `(1, alternatives, length)`):
            Alternatives y_i, −100 on padding. Empty rows, and rows equal to the target, are left out.
        prefix_labels (`torch.LongTensor` of shape `(1, prefixes, length)`, *optional*):
            Prefixes p_j, −100 on padding. Empty rows, and prefixes of the target itself, are left out.
        length_penalty (`float`): λ of the scores.
        create_graph (`bool`, *optional*, defaults to `False`):
            Whether gradients will be differentiated again, and reach the trunk.
        encoded (`torch.Tensor` of shape `(1, source_length, hidden)`, *optional*):
            What `tail.encode` gives for the source, with a graph if the trunk is trained; `None` encodes it here.
        references ([`References`], *optional*): sentences that are to stay as they are, for editors that need them.

    Attributes:
        parameters (`dict[str, torch.Tensor]`): the edited parameters of the tail, by name.
        tail ([`Tail`]), model ([`~transformers.PreTrainedModel`]): what is edited.
        edits (`list[dict[str, torch.Tensor]]`): the one edit, under the names of [`EditableMixin.edit`].
        references ([`References`], *optional*): see above.

    Raises:
        EditableValueError:
            if `check_edit` refuses it, the target is empty, no alternative is left, or a prefix is longer than the
            target.
    """

    def __init__(
        self,
        tail: Tail,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        alternative_labels: Tensor | None,
        prefix_labels: Tensor | None = None,
        *,
        length_penalty: float,
        create_graph: bool = False,
        encoded: Tensor | None = None,
        references: References | None = None,
    ):
        check_edit(tail.model.config, input_ids, labels, alternative_labels)
        tensors = (input_ids, attention_mask, labels, alternative_labels, prefix_labels)
        input_ids, attention_mask, labels, alternative_labels, prefix_labels = map(outside_inference, tensors)
        self.tail, self.model, self.references = tail, tail.model, references
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        self.edits = [{**given, "alternative_labels": alternative_labels, "prefix_labels": prefix_labels}]
        if not create_graph:  # in training the collator has made them
            check_tokens(tail.model, self.edits[0])
        self.parameters: dict[str, Tensor] = dict(tail.parameters)
        self.length_penalty = length_penalty
        self.create_graph = create_graph
        self._source = (input_ids, attention_mask)
        with torch.set_grad_enabled(create_graph):
            self._encoded = tail.encode(*self._source) if encoded is None else encoded
        self._labels = candidates(labels, alternative_labels)
        whole = self._labels.shape[0]
        if prefix_labels is not None:
            self._labels, compared = _with_prefixes(self._labels, prefix_labels)
        self._scored, lengths = beam_search_tokens(tail.model, self._labels)
        self._rules = ScoreRules(tail.model, input_ids)
        self._rules.check(self._labels[0], input_ids)
        # As many tokens of the target as a prefix has are compared with it, and all of them with whole translations.
        self._compared = (self._labels != PADDING)[:1].repeat(len(self._labels), 1)
        if prefix_labels is not None:
            self._compared[whole:] = compared
            self._scored[whole:].masked_fill_(~compared, PADDING)
            lengths[whole:] = compared.sum(-1)
        self._lengths = lengths.float() ** length_penalty
        self._compared_lengths = torch.cat([self._lengths[:1].expand(whole), self._lengths[whole:]])
        self._prefixes_shared = takes_prefix_trees(tail.model)
        with torch.no_grad():
            self._states = self._record(slice(None), self._encoded.detach())
            if not tail.is_checked:
                tail.check_exact(tail.record(*self._source, self._labels[:1], self._encoded.detach()))
        self._fixed = tail.fixed_parameters if create_graph else []
        self._pairs: dict[int, TrunkStates | PrefixStates] = {}
        self._bound: NormalizerBound | None = None

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """`l_e` at the given parameters; above 0 it carries a graph."""
        term = self.term(parameters)
        return term.loss(parameters, term.inputs)

    def term(self, parameters: dict[str, Tensor]) -> EditTerm:
        """`l_e` at the given parameters without a graph, and what gives it one where it is above 0."""
        states, gradient, known = self._states, None, None
        with torch.no_grad():
            scores = self._leading_scores(parameters)
            log_probs = self._log_probs(states, parameters) if scores is None else scores.log_probs
            value, winner = self._terms(log_probs).max(0)
            if not value > 0:
                return EditTerm(value, lambda parameters, inputs: value, [], [])
            rows = [0, 1 + int(winner)]
            if scores is not None and not self.create_graph:
                gradient = scores.gradient()[states.tree.select(rows)[1]]
            elif scores is not None and self.tail.trained_projection is not None:
                known = scores.predicted(rows)
        states = self._pair(rows[1])

        def loss(parameters: dict[str, Tensor], inputs: list[Tensor]) -> Tensor:
            with torch.enable_grad():
                own = states.replaced(inputs)
                if gradient is not None:
                    return with_gradients(value, [self.tail.hidden(own, parameters)], [gradient[None]])
                if known is not None:
                    log_probs = self._trained_log_probs(own, parameters, rows, *known)
                else:
                    log_probs = self._log_probs(own, parameters, rows, self.create_graph)
                one = self._terms(log_probs, rows)[0]
            # Two sequences and all of them differ by rounding; the value that decides is the one over all.
            return one + (value - one).detach()

        return EditTerm(value, loss, states.differentiable(), self._fixed)

    def _leading_scores(self, parameters: dict[str, Tensor]) -> LeadingScores | None:
        """The scores that matter, where they can be had without all others."""
        projection = self.tail.projection
        if projection is None or not isinstance(self._states, PrefixStates) or not self._rules.is_plain:
            return None
        hidden = self.tail.hidden(self._states, parameters)[0]
        rows = (self._states.tree.places, self._scored)
        scores = LeadingScores(self._rules.projection(projection), hidden, *rows, self._terms, self._bound)
        self._bound = scores.bound
        return scores

    def _record(self, rows: slice | list[int], encoded: Tensor) -> TrunkStates | PrefixStates:
        if self._prefixes_shared:
            return self.tail.record_prefixes(*self._source, self._labels[rows], self._scored[rows], encoded)
        return self.tail.record(*self._source, self._labels[rows], encoded)

    def _log_probs(
        self,
        states: TrunkStates | PrefixStates,
        parameters: dict[str, Tensor],
        rows: slice | list[int] = slice(None),
        double_backward: bool = False,
    ) -> Tensor:
        """Log-probability of each token of the rows, whose states these are."""
        logits = self._rules.logits(self.tail.logits(states, parameters, double_backward))
        if not self._rules.is_plain:
            logits = logits[0][states.tree.places] if isinstance(states, PrefixStates) else logits
            return self._rules.token_log_probs(logits, self._labels[rows], self._scored[rows])
        if isinstance(states, PrefixStates):
            return states.tree.token_log_probs(logits[0], self._scored[rows])
        return token_log_probs(logits, self._scored[rows])

    def _trained_log_probs(
        self, states: PrefixStates, parameters: dict[str, Tensor], rows: list[int], predicted: Tensor, known: Tensor
    ) -> Tensor:
        """The same with a graph for second derivatives, from what the rows' prefixes are known to predict."""
        labels, hidden = self._scored[rows], self.tail.hidden(states, parameters, double_backward=True)[0]
        needed = labels != PADDING
        places = states.tree.places[needed]
        probabilities = predicted.new_zeros(hidden.shape[0], predicted.shape[1])
        probabilities[places] = predicted
        given = (hidden, places, labels[needed], probabilities, known)
        return known.new_zeros(labels.shape).index_put((needed,), self.tail.trained_projection.log_probs(*given))

    def _terms(self, log_probs: Tensor, rows: slice | list[int] = slice(None)) -> Tensor:
        """By how much each alternative and prefix outranks the target, whose log-probabilities are the first row."""
        target = torch.where(self._compared[rows], log_probs[0], 0.0).sum(-1) / self._compared_lengths[rows]
        return (log_probs.sum(-1) / self._lengths[rows] - target)[1:]

    def _pair(self, winner: int) -> TrunkStates | PrefixStates:
        """Trunk states of the target and one other row; with a graph, if the trunk is trained through them."""
        rows = [0, winner]
        if winner not in self._pairs:
            self._pairs[winner] = self._record(rows, self._encoded) if self.create_graph else self._states.rows(rows)
        return self._pairs[winner]


class JointEditProblem:
    """
    Several edits of the same tail as one: the mean of their `l_e` over those that are above 0, and the largest once
    none is.

    Args:
        problems (`Sequence[TranslationEditProblem]`): the edits, at least one.
    """

    def __init__(self, problems: Sequence[TranslationEditProblem]):
        self._problems = problems
        first = problems[0]
        self.tail, self.model, self.references = first.tail, first.model, first.references
        self.parameters, self.length_penalty = first.parameters, first.length_penalty
        self.edits = [edit for problem in problems for edit in problem.edits]

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """The joint `l_e` at the given parameters; above 0 it carries a graph."""
        return joint_loss([problem(parameters) for problem in self._problems])


def joint_loss(losses: Sequence[Tensor]) -> Tensor:
    """The `l_e` of several edits as one: the mean of those above 0, and the largest once none is."""
    each = torch.stack(list(losses))
    unmet = each[~(each <= 0)]  # NaN is the editor's to report
    return unmet.mean() if len(unmet) else each.max()
