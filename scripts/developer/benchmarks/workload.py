"""What is timed: a model with random weights of a given shape, its own translations as edits, and training batches."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import MarianConfig

from hf_editable.configuration import EditConfig
from hf_editable.decoding.generation import frozen
from hf_editable.modeling.auto import AutoEditableModelForSeq2SeqLM
from hf_editable.modeling.mixin import EditableMixin
from hf_editable.numerics.scoring import PADDING


START, PAD, END, FIRST_WORD = 0, 1, 2, 3


@dataclass(frozen=True)
class Workload:
    """
    The shape of everything that is timed. The defaults are fairseq's `transformer_iwslt_de_en`, which the paper edits.

    Args:
        vocab_size (`int`, *optional*, defaults to `10000`): tokens, shared by source, target and projection.
        encoder_layers (`int`, *optional*, defaults to `6`): encoder layers.
        decoder_layers (`int`, *optional*, defaults to `6`): decoder layers; the last one is edited.
        num_alternatives (`int`, *optional*, defaults to `32`): translations that an edit's target is to outrank.
        length (`int`, *optional*, defaults to `25`): tokens of sources and of translations.
        batch_tokens (`int`, *optional*, defaults to `4096`): target tokens of a training batch.
        max_steps (`int`, *optional*, defaults to `10`): the most steps of an edit.
        learning_rate (`float`, *optional*, defaults to `5e-06`): step size of edits; with it most take several steps.
        sharpness (`float`, *optional*, defaults to `6.0`):
            Factor of the logits. Those of random weights are almost uniform, so that all alternatives are as good as
            tied; with 6, predictions have 2 nats of entropy, where those of a trained model have 1 to 2.
        seed (`int`, *optional*, defaults to `0`): of the weights, sources and samples.
        model_name_or_path (`str`, *optional*): a model to take instead of random weights, with random sources.
    """

    vocab_size: int = 10_000
    encoder_layers: int = 6
    decoder_layers: int = 6
    num_alternatives: int = 32
    length: int = 25
    batch_tokens: int = 4096
    max_steps: int = 10
    learning_rate: float = 5e-6
    sharpness: float = 6.0
    seed: int = 0
    model_name_or_path: str | None = None

    def model(self) -> EditableMixin:
        """The model, in evaluation mode and without dropout, so that two ways to train it give the same loss."""
        config = EditConfig(learning_rate=self.learning_rate, max_steps=self.max_steps, length_penalty=1.0)
        if self.model_name_or_path is not None:
            model = AutoEditableModelForSeq2SeqLM.from_pretrained(self.model_name_or_path, edit_config=config)
        else:
            torch.manual_seed(self.seed)
            model = AutoEditableModelForSeq2SeqLM.from_config(self._shape(), config)
            model.get_decoder().layers[-1].final_layer_norm.weight.data *= self.sharpness
        for module in model.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        model.generation_config.max_length = None
        return model.eval()

    def _shape(self) -> MarianConfig:
        return MarianConfig(
            vocab_size=self.vocab_size,
            decoder_vocab_size=self.vocab_size,
            d_model=512,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=1024,
            decoder_ffn_dim=1024,
            max_position_embeddings=1024,
            activation_function="relu",
            scale_embedding=True,
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
            init_std=512**-0.5,
            bos_token_id=START,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=END,
            forced_eos_token_id=END,
        )

    def sources(self, model: EditableMixin, count: int, offset: int = 0) -> Tensor:
        """Random sources, of shape `(count, length)`."""
        generator = torch.Generator().manual_seed(self.seed + 1 + offset)
        words = min(model.config.vocab_size, self.vocab_size)
        tokens = torch.randint(FIRST_WORD, words, (count, self.length), generator=generator)
        tokens[:, -1] = model.config.eos_token_id
        return tokens.to(model.device)

    def edits(self, model: EditableMixin, count: int) -> list[dict[str, Tensor]]:
        """
        Edits as the model's `edit` takes them: its most likely translations by beam search, which share prefixes as
        those of a trained model do, and one that is sampled.
        """
        edits = []
        for row, source in enumerate(self.sources(model, count).split(1)):
            mask = torch.ones_like(source)
            limits = {"attention_mask": mask, "max_new_tokens": self.length}
            with frozen(model):
                likely = model.generate(
                    source,
                    num_beams=self.num_alternatives,
                    num_return_sequences=self.num_alternatives,
                    do_sample=False,
                    **limits,
                )
                torch.manual_seed(self.seed + row)
                sampled = model.generate(source, num_beams=1, do_sample=True, temperature=1.2, top_k=0, **limits)
            labels, alternatives = (_labels(model, tokens) for tokens in (sampled.clone(), likely.clone()))
            edits.append(
                {
                    "input_ids": source,
                    "attention_mask": mask,
                    "labels": labels,
                    "alternative_labels": alternatives.unsqueeze(0),
                }
            )
        return edits

    def batch(self, model: EditableMixin) -> dict[str, Tensor]:
        """A training batch of random pairs without padding."""
        rows = max(1, self.batch_tokens // self.length)
        source, target = self.sources(model, rows, 1), self.sources(model, rows, 2)
        return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": target}


def joined(edits: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Edits in the form in which a model's forward pass takes them beside a batch."""

    def together(name: str) -> Tensor:
        width = max(edit[name].shape[-1] for edit in edits)
        rows = [
            torch.nn.functional.pad(edit[name], (0, width - edit[name].shape[-1]), value=PADDING) for edit in edits
        ]
        return torch.cat(rows)

    return {f"edit_{name}": together(name) for name in edits[0]}


def _labels(model: EditableMixin, generated: Tensor) -> Tensor:
    tokens = generated[:, 1:]
    return tokens.masked_fill(tokens == model.config.pad_token_id, PADDING)
