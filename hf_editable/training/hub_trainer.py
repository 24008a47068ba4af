"""What trainers write for the Hub: cards with data, arguments and measured numbers, and nothing over a person's."""

import dataclasses
import enum
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import Seq2SeqTrainer, TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging

from ..hub.cards import changed_values, set_results, set_section, table, write_card
from ..hub.model_card import model_card
from ..hub.transfer import take_card
from ..models.private_names import check_private_names


check_private_names(__name__)


logger = logging.get_logger(__name__)

# Arguments that say where and by whom, not how a model was trained; tokens are among them.
_PRIVATE_ARGUMENTS = re.compile(
    r"output_dir|logging_dir|resume_from_checkpoint|run_name|disable_tqdm|dataloader_pin_memory|.*hub.*|.*token"
    "|label_names"
)
_TIMING = re.compile(r"eval_(runtime|.*_per_second|.*_time)")


class HubTrainer(Seq2SeqTrainer):
    """
    A [`~transformers.Seq2SeqTrainer`] that writes the cards of [`model_card`], and keeps those that a person wrote,
    in `output_dir` and on the Hub.
    """

    def create_model_card(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | None = None,
        dataset_args: str | None = None,
    ) -> None:
        """
        Write a card with the data, the arguments that are not the defaults, and the numbers of the last evaluation to
        `output_dir`, unless there is one that a person wrote.

        Args:
            language (`str`, *optional*): language codes of the model.
            license (`str`, *optional*): its license.
            tags (`str`, *optional*): further tags.
            model_name (`str`, *optional*): heading of the card.
            finetuned_from (`str`, *optional*): the model trained from; by default the one loaded, if from the Hub.
            tasks (`str`, *optional*): the task, `"translation"` by default.
            dataset_tags (`str`, *optional*): names of the data on the Hub.
            dataset (`str`, *optional*): what to call the evaluation data.
            dataset_args (`str`, *optional*): the part of them that was used.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir).resolve()
        metadata = {"language": language, "license": license, "datasets": dataset_tags, "base_model": finetuned_from}
        card = model_card(
            self.accelerator.unwrap_model(self.model),
            self.hub_model_id or folder.name,
            title=model_name,
            tags=[tags] if isinstance(tags, str) else tags or [],
            pipeline_tag=tasks or "translation",
            **{key: value for key, value in metadata.items() if value is not None},
        )
        self._add_training(card, " ".join(filter(None, [dataset or "validation data", dataset_args])))
        write_card(card, folder)

    def _add_training(self, card: ModelCard, evaluated_on: str) -> None:
        sets = {"training": self.train_dataset, "validation": self.eval_dataset}
        sets["mined edits"] = getattr(self, "edit_dataset", None)
        data = "\n".join(f"- {kind}: {_describe(rows)}" for kind, rows in sets.items() if rows is not None)
        arguments = _changed_arguments(self.args)
        if self.args.world_size > 1:
            arguments["processes"] = self.args.world_size
        chosen = table(("argument", "value"), arguments)
        parts = [f"Data:\n\n{data}", f"Arguments that are not the defaults:\n\n{chosen}"]
        evaluations = [entry for entry in self.state.log_history if "eval_loss" in entry]
        if evaluations:
            last = {
                key.removeprefix("eval_"): value
                for key, value in evaluations[-1].items()
                if key.startswith("eval_") and not _TIMING.fullmatch(key)
            }
            measured = table(("metric", "value"), last)
            parts.append(f"Evaluation after {evaluations[-1]['step']} steps:\n\n{measured}")
            place = {"dataset_type": "custom", "dataset_name": evaluated_on, "dataset_split": "validation"}
            set_results(card, place, {key: (key, value) for key, value in last.items()})
        set_section(card, "Training", "\n\n".join(parts))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Upload `output_dir` as [`~transformers.Trainer.push_to_hub`] does, keeping a card that a person wrote."""
        token, revision = token or self.args.hub_token, revision or self.args.hub_revision
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        if self.is_world_process_zero():
            take_card(Path(self.args.output_dir), self.hub_model_id, revision, token)
        return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # Warns of what is lost. Tied weights are there by another name, what is computed is never saved, and an
        # editor's coefficients are loaded after this.
        model = self.accelerator.unwrap_model(self.model)
        elsewhere = {*model.all_tied_weights_keys, *(model._keys_to_ignore_on_save or ())}
        lost = [key for key in load_result.missing_keys if key not in elsewhere and not key.startswith("editor.")]
        super()._issue_warnings_after_load(type(load_result)(lost, load_result.unexpected_keys))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            try:
                take_card(Path(self.args.output_dir), self.hub_model_id, self.args.hub_revision, self.args.hub_token)
            except OSError as error:
                logger.warning(f"{checkpoint_folder} is not pushed, as the Hub's card cannot be read: {error}")
                return
        super()._push_from_checkpoint(checkpoint_folder)


def _changed_arguments(arguments: TrainingArguments) -> dict[str, Any]:
    """The arguments that are not the defaults of their fields. (A new instance to compare with resets accelerate.)"""

    def plain(value: Any) -> Any:
        return value.value if isinstance(value, enum.Enum) else value

    values, defaults = {}, {}
    for item in dataclasses.fields(arguments):
        value = plain(getattr(arguments, item.name))
        default = plain(item.default if item.default_factory is dataclasses.MISSING else item.default_factory())
        # What `__post_init__` makes of a default (an object, an empty list, False of None) is no choice of a user.
        made = value in ([], {}) or (value is False and default is None)
        if isinstance(value, str | int | float | list | dict) and not made:
            values[item.name], defaults[item.name] = value, default
    changed = changed_values(values, defaults)
    return {name: value for name, value in changed.items() if not _PRIVATE_ARGUMENTS.fullmatch(name)}


def _describe(rows: Any) -> str:
    size = f"{len(rows):,} rows" if hasattr(rows, "__len__") else "a stream"
    info = getattr(rows, "info", None)
    facts = [getattr(info, key, None) for key in ("dataset_name", "config_name", "version")]
    if hasattr(rows, "_fingerprint"):
        facts.append(f"fingerprint {rows._fingerprint}")
    known = ", ".join(str(fact) for fact in facts if fact)
    return f"{size} ({known})" if known else size
