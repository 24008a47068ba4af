"""Edits by neurons that fire at the states of one correction, and nowhere else."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils import logging

from ...data.references import References
from ...decoding.generation import frozen
from ...numerics.scoring import PADDING
from ...patches.added_neurons import AddedNeurons, NeuronGroup, Site, to_levels
from ...patches.application import bare_copy, changed
from ...patches.changes import together
from ..problems.constraint import constraint_value
from ..problems.translation_problem import JointEditProblem, TranslationEditProblem
from ..protocol import AdditiveEditor, EditOutcome
from .collecting import BATCH, protected_states
from .options import NeuronOptions
from .positions import FinalFeedForward, Positions
from .protected_states import ProtectedStates
from .space import Space, directions_to
from .values import find_values


logger = logging.get_logger(__name__)

# Below which probabilities tokens get neurons where those of `patch_below` are not enough; at last, all of them.
LEVELS = (0.85, 0.95, 0.985, 1.0)
# How far caps reach that are not told, with references and without.
REACH, REACH_ALONE = 0.2, 0.02
# By which smooth activations come near to ReLU.
SHARPNESS = {"relu": 1.0}
SMOOTH = 16.0


class CapNeurons(AdditiveEditor):
    """
    Adds neurons to the feed-forward of the final decoder layer, each for one position of a correction's target: it is
    1 at the state there, 0 outside a cap around that, and makes the target's token the most probable one.

    What is added there changes the logits of that very position and nothing else, as no attention comes after it. So
    corrections do not disturb each other, and a translation whose search comes by no cap stays as it is. The nearest
    in print is T-Patcher ([Huang et al., 2023](https://arxiv.org/abs/2301.09785)), with a trained neuron an error.

    For settings see [`NeuronOptions`].
    """

    options: NeuronOptions

    def forward(self, problem: TranslationEditProblem | JointEditProblem, create_graph: bool = False) -> EditOutcome:
        """See [`Editor`]."""
        model, edits = problem.model, problem.edits
        with frozen(model), torch.inference_mode(False):
            initial = constraint_value(model, edits, problem.length_penalty)
            made = self.prepared(model, edits, problem.references)
            for level in range(made.levels):
                changes = together(made.parts([level] * len(edits)))
                with changed(model, changes):
                    loss = constraint_value(model, edits, problem.length_penalty)
                if loss <= 0:
                    break
        return EditOutcome({}, torch.tensor(loss), initial, level + 1, changes)

    def prepared(
        self, model: PreTrainedModel, edits: Sequence[Mapping[str, Tensor | None]], references: References | None
    ) -> "CapCorrections":
        """See [`AdditiveEditor`]."""
        if references is None:
            logger.warning_once(
                "There are no reference sentences, so caps are kept small. With some thousand sentences of your kind "
                "(reference_file, or references=…), corrections carry over to more variants of their sentences, and "
                "fewer others change."
            )
        return CapCorrections(bare_copy(model), edits, references, self.options)


class CapCorrections:
    """
    Corrections whose neurons are made as they are asked for. They depend on the model without any neurons, so on no
    other correction.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model, without neurons.
        edits (`Sequence[dict[str, torch.Tensor]]`): `input_ids`, `attention_mask` and `labels` of each.
        references ([`References`], *optional*): sentences that are to stay as they are.
        options ([`NeuronOptions`]): the settings.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        edits: Sequence[Mapping[str, Tensor | None]],
        references: References | None,
        options: NeuronOptions,
    ):
        self._options = options
        self._floors = [options.patch_below, *(level for level in LEVELS if level > options.patch_below)]
        batches = _batches(edits)
        with frozen(model):
            self._final = FinalFeedForward(model, batches[0][1])
            self._space = Space.of(self._final.found)
            self._protected: ProtectedStates | None = None
            if references is not None:
                self._protected = protected_states(self._final, self._space, references, options.num_references)
            parts: dict[int, Positions] = {}
            for rows, batch in batches:
                found = self._final.positions(batch)
                parts |= {row: found[found.rows == place] for place, row in enumerate(rows)}
        self._positions = [parts[row] for row in range(len(edits))]
        self._known: list[dict[str, Tensor]] = [{} for _ in edits]
        self._parts: dict[tuple[int, tuple[bool, ...]], tuple[AddedNeurons, ...]] = {}
        found = self._final.found
        sharpness = SHARPNESS.get(found.activation, SMOOTH)
        self.site = Site(found.firsts, found.second, sharpness, found.fits_plain)

    @property
    def levels(self) -> int:
        """How many sizes a correction's group can have."""
        return len(self._floors)

    def parts(self, levels: Sequence[int]) -> list[tuple[AddedNeurons, ...]]:
        """See [`AdditiveCorrections`]."""
        chosen = [self._chosen(row, level) for row, level in enumerate(levels)]
        self._make(chosen)
        return [self._part(row, mask) for row, mask in enumerate(chosen)]

    def _chosen(self, row: int, level: int) -> Tensor:
        """Which positions of a correction get neurons."""
        own = self._positions[row]
        if level < 0:
            return torch.zeros_like(own.tokens, dtype=torch.bool)
        return (own.predicted != own.tokens) | (own.probabilities < self._floors[level])

    def _make(self, chosen: Sequence[Tensor]) -> None:
        """Make the neurons of chosen positions that are not known, all at once."""
        wanted = []
        for row, mask in enumerate(chosen):
            if self._known[row]:
                mask = mask & ~self._known[row]["made"]
            if bool(mask.any()):
                wanted.append((row, mask))
        if not wanted:
            return
        neurons = self._neurons(Positions.join([self._positions[row][mask] for row, mask in wanted]))
        sizes = [int(mask.sum()) for _, mask in wanted]
        split = {name: tensor.split(sizes) for name, tensor in neurons.items()}
        for place, (row, mask) in enumerate(wanted):
            known, mask = self._known[row], mask.cpu()
            for name, parts in {**split, "made": [mask[mask] for _, mask in wanted]}.items():
                part = parts[place].cpu()
                whole = known.setdefault(name, part.new_zeros(len(mask), *part.shape[1:]))
                whole[mask] = part

    def _neurons(self, positions: Positions) -> dict[str, Tensor]:
        """The neurons of positions, under the names of [`NeuronGroup`]."""
        given = (positions.rests, positions.outputs, positions.tokens, self._options.confidence)
        values = self._options.gain * find_values(self._final.logits, *given)
        normed = self._space.normed(positions.states)
        directions, offsets = directions_to(normed, self._options.metric, self._protected)
        thresholds = torch.full_like(offsets, 1 - self._reach)
        if self._protected is not None:
            thresholds = torch.maximum(thresholds, self._protected.thresholds(directions, offsets, positions.tokens))
        levels, steps = to_levels(self._space.back(directions).cpu())
        # So that it is 1 at the state itself, after rounding.
        at_state = (levels.double() * steps.double()[:, None] * positions.states.cpu().double()).sum(-1)
        return {
            "directions": levels,
            "direction_steps": steps,
            "offsets": (1 - at_state).float(),
            "thresholds": thresholds.float(),
            "values": values.half(),
            "tokens": positions.tokens.int(),
        }

    def _part(self, row: int, mask: Tensor) -> tuple[AddedNeurons, ...]:
        """What a correction comes to with neurons at these positions; the same object each time."""
        key = (row, tuple(mask.tolist()))
        if key not in self._parts:
            states, steps = to_levels(self._positions[row].states.cpu().float())
            own = {name: tensor[mask.cpu()] for name, tensor in self._known[row].items() if name != "made"}
            tokens = self._positions[row].tokens.cpu().int()
            group = bool(mask.any()) and NeuronGroup(**own, states=states, state_steps=steps, state_tokens=tokens)
            self._parts[key] = (AddedNeurons(self.site, (group,)),) if group else ()
        return self._parts[key]

    @property
    def _reach(self) -> float:
        if self._options.reach is not None:
            return self._options.reach
        return REACH_ALONE if self._protected is None else REACH


def _batches(
    edits: Sequence[Mapping[str, Tensor | None]],
) -> list[tuple[list[int], dict[str, Tensor | None]]]:
    """
    Edits of about the same length together, with their numbers: the same ones, whichever order they come in, as other
    batches are rounded otherwise.
    """
    sources = [edit["input_ids"][0] for edit in edits]
    masks = [
        torch.ones_like(source) if edit["attention_mask"] is None else edit["attention_mask"][0]
        for source, edit in zip(sources, edits, strict=True)
    ]
    labels = [edit["labels"][0][edit["labels"][0] != PADDING] for edit in edits]
    keys = [(len(y), len(x), y.tolist(), x.tolist()) for x, y in zip(sources, labels, strict=True)]
    order = sorted(range(len(edits)), key=keys.__getitem__)
    batches = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = {
            "input_ids": pad_sequence([sources[row] for row in rows], batch_first=True, padding_value=0),
            "attention_mask": pad_sequence([masks[row] for row in rows], batch_first=True, padding_value=0),
            "labels": pad_sequence([labels[row] for row in rows], batch_first=True, padding_value=PADDING),
        }
        batches.append((rows, batch))
    return batches
