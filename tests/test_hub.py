"""Models and patches through a Hub, with the real client: see hub_server.py and hub_client.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hub_client import CARDS, MODEL, PATCH
from hub_server import TOKEN, LocalHub
from huggingface_hub import ModelCard
from safetensors.torch import load

from hf_editable.hub.cards import by_a_person


TESTS = Path(__file__).parent
SOURCES = ["der hund sieht den ball .", "der mann kauft den baum .", "der baum malt den tisch ."]


@pytest.fixture(scope="module")
def start(tmp_path_factory, make_tiny_model, tiny_tokenizer, tiny_pairs, tiny_edits):
    """A folder with what the clients start from."""
    folder = tmp_path_factory.mktemp("hub")
    make_tiny_model().save_pretrained(folder / "start")
    tiny_tokenizer.save_pretrained(folder / "start")
    Dataset.from_list(tiny_pairs).save_to_disk(folder / "pairs")
    tiny_edits.save_to_disk(folder / "edits")
    (folder / "sources.json").write_text(json.dumps(SOURCES))
    return folder


def client(command, folder, hub, **environment):
    """What a client saw, and all that it printed."""
    variables = {**os.environ, **hub.environment(folder / "home"), "OMP_NUM_THREADS": "1", **environment}
    variables["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, str(TESTS / "hub_client.py"), command, str(folder)],
        capture_output=True, text=True, env=variables, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads((folder / f"{command}.json").read_text()), done.stdout + done.stderr


@pytest.fixture(scope="module")
def trip(start):
    """A training, a correction and its application, each in a process of its own; what they saw, and the Hub."""
    with LocalHub() as hub:
        clients = {command: client(command, start, hub) for command in ("train", "patch", "apply")}
        yield hub, {name: seen for name, (seen, _) in clients.items()}, [log for _, log in clients.values()]


def test_the_same_translations_after_a_round_trip(trip):
    _, seen, _ = trip
    assert seen["train"]["translations"] == seen["patch"]["translations"] == seen["apply"]["translations"]
    assert seen["patch"]["patched"] == seen["apply"]["patched"] != seen["apply"]["translations"]
    assert seen["apply"]["reverted"] == seen["apply"]["translations"]
    assert seen["patch"]["success"] and seen["patch"]["type"] == "EditableMarianMTModel"


def test_vanilla_transformers_loads_the_pushed_model_by_name(trip):
    _, seen, _ = trip
    assert seen["apply"]["type"] == "MarianMTModel" and not any(seen["apply"]["info"].values())


def test_revisions(trip):
    hub, seen, _ = trip
    assert seen["apply"]["sources"] == [SOURCES[0], "another text", "another text"]
    # The patch knows the commit of its base, and the tag named the same one.
    assert seen["apply"]["base"] == [MODEL, seen["train"]["commit"]]
    weights = [load(hub.files(MODEL, seen["train"][name])["model.safetensors"]) for name in ("commit", "second")]
    assert not torch.equal(weights[0]["model.shared.weight"], weights[1]["model.shared.weight"])


def test_large_files_went_by_lfs(trip):
    hub, _, _ = trip
    assert {"model.safetensors", "training_args.bin", "README.md"} <= set(hub.files(MODEL))
    assert hub.files(MODEL)["model.safetensors"] in hub.blobs.values()
    assert set(hub.files(PATCH)) == {".gitattributes", "README.md", "edit_config.json", "edit_model.safetensors"}


def test_the_token_is_nowhere(trip, start):
    hub, _, logs = trip
    token = TOKEN.encode()
    written = [path for path in start.rglob("*") if path.is_file()]
    assert {"training_args.bin", "edit_config.json", "trainer_state.json"} <= {path.name for path in written}
    assert [path for path in written if token in path.read_bytes()] == []
    uploaded = [
        (name, path)
        for name, repository in hub.repositories.items()
        for files in repository.commits.values()
        for path, content in files.items()
        if token in content
    ]
    assert uploaded == [] and not any(token in body for body in hub.bodies)
    assert not any(TOKEN in log for log in logs) and not any(TOKEN in path for _, path in hub.requests)


def test_refused_names_and_revisions(trip):
    _, seen, _ = trip
    errors = seen["apply"]["errors"]
    assert all(error.startswith("EditableFileError: ") for error in errors)
    for error, pattern in zip(
        errors,
        [
            r"'/nowhere' is no folder, and nothing of that name could be had from the Hub: .*Check the path",
            r"'no/such' is no folder.*Repository Not Found.*the name \(user/name\)",
            r"'tester/patch' is no folder.*Revision Not Found.*the revision",
            r"'tester/patch' is no folder.*the token if it is private",
            r"'tester/editable' is not an edit patch: .*edit_config.json.*as EditPatch.save_pretrained writes them",
        ],
        strict=True,
    ):
        assert re.search(pattern, error, re.DOTALL), error


def test_the_trainers_card(trip):
    hub, seen, _ = trip
    text = seen["train"]["card"]
    assert hub.files(MODEL, seen["train"]["commit"])["README.md"] == text.encode() and not by_a_person(text.encode())
    card = ModelCard(text)
    assert card.data.license == "mit" and card.data.language == ["de", "en"] and card.data.base_model is None
    (result,) = [result for result in card.data.eval_results if result.metric_type == "loss"]
    assert result.dataset_name == "Tiny pairs" and 0 < result.metric_value < 10
    assert f'from_pretrained("{MODEL}")' in text and "mined edits: 6 rows" in text and "training: 24 rows" in text
    assert "| learning_rate | 0.005 |" in text and "sinitsin2020editable" in text and "- transformers 5" in text
    assert "hub" not in re.search("(?s)Arguments that.*?\n## ", text)[0].replace("hf_editable", "")


def test_a_card_that_a_person_changed_on_the_hub_survives_the_trainer(trip):
    hub, seen, _ = trip
    kept = (seen["train"]["card"] + "\nA person's remark.\n").encode()
    for commit in ("second", "third"):
        assert hub.files(MODEL, seen["train"][commit])["README.md"] == kept
    assert seen["train"]["aside"] == "Another person's card." and "_README.md" not in hub.files(MODEL)


def test_the_patchs_card(trip):
    hub, seen, _ = trip
    text = hub.files(PATCH, seen["patch"]["main"])["README.md"].decode()
    assert f"source:      {SOURCES[0]}\ntranslation: the dog sees the ball ." in text
    assert f'EditPatch.from_pretrained("{PATCH}")' in text and "sinitsin2020editable" in text
    base = seen["train"]["commit"]
    assert f'AutoEditableModelForSeq2SeqLM.from_pretrained("{MODEL}", revision="{base}")' in text
    assert ModelCard(text).data.base_model == MODEL and "| l_e after the edit | -" in text


@pytest.fixture(scope="module")
def cards(start):
    """With xet at hand, the client uploads by another code path, here to a Hub that wants no large files apart."""
    with LocalHub(lfs="nothing") as hub:
        yield hub, client("cards", start, hub, HF_HUB_DISABLE_XET="0")[0]


def test_measured_numbers_and_kept_cards(cards):
    hub, seen = cards
    plain, measured, by_hand, patch, _ = (hub.files(CARDS, commit) for commit in seen["commits"])
    assert b"model-index" not in plain["README.md"]
    card = ModelCard(measured["README.md"].decode())
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    keys = {"bleu": "bleu", "bleu_drawdown": "drawdown", "edit_success_rate": "success_rate"}
    keys |= {"edit_decode_success_rate": "decode_success_rate", "edit_steps": "mean_steps"}
    assert metrics == {kind: pytest.approx(seen["summary"][key]) for kind, key in keys.items()}
    assert card.data.model_name == "cards" and "own-tag" in card.data.tags and "## Edits, measured" in card.text
    assert by_hand["README.md"] == patch["README.md"] == b"By hand."
    assert by_hand["model.safetensors"] != measured["model.safetensors"] and "edit_config.json" in patch


def test_pull_requests_and_push_to_hub_while_saving(cards, start):
    hub, seen = cards
    repository = hub.repositories[CARDS]
    assert any(name.startswith("refs/pr/") for name in repository.refs) and hub.repositories["tester/saved"].private
    assert seen["commits"][-1] != repository.refs["main"]
    saved = hub.files("tester/saved")
    assert saved["model.safetensors"] == (start / "local" / "model.safetensors").read_bytes()
    assert b'from_pretrained("tester/saved")' in saved["README.md"]
