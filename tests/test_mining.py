import json
from collections import Counter

import datasets
import numpy as np
import pytest
import torch

from hf_editable import EditableFileError, EditableTypeError, EditableValueError, mine_edits
from hf_editable.cli.commands.mine_edits import main
from hf_editable.decoding.encoded_sources import EncodedSources
from hf_editable.mining.mined_edits import INFO_NAME, JOURNAL_NAME
from hf_editable.mining.miner import SeededSampling
from hf_editable.models.weights import fingerprint_model


OPTIONS = {"num_alternatives": 3, "batch_size": 4, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def sources(tiny_pairs):
    """Ten sources of different lengths, an empty one and one that is too long for the model."""
    texts = [" ".join(pair["source"].split()[: 2 + index % 5]) for index, pair in enumerate(tiny_pairs[:10])]
    return datasets.Dataset.from_dict({"source": [*texts, " ", "hund " * 40]})


@pytest.fixture
def counted(tiny_model, tiny_tokenizer, sources, tmp_path):
    """Mines from fixed decodings instead of the model's: gives the edits and the counts."""

    def mine(target, alternatives):
        def encode(text):
            return [2, *tiny_tokenizer(text_target=text).input_ids] if text else [2, 2]

        def generate(num_beams, **_):
            rows = [encode(text) for text in (alternatives if num_beams > 1 else [target])]
            return torch.tensor([row + [1] * (16 - len(row)) for row in rows])

        tiny_model.generate = generate
        options = {"num_alternatives": len(alternatives), "batch_size": 1, "output_dir": tmp_path / "mined"}
        edits = mine_edits(tiny_model, tiny_tokenizer, sources.select([2, 10, 11]), **options)
        return edits.to_list(), json.loads((tmp_path / "mined" / INFO_NAME).read_text())["counts"]

    return mine


def test_batches_equal_one_at_a_time_and_plain_generate(tiny_model, tiny_tokenizer, sources):
    tiny_model.train()
    settings = tiny_model.generation_config.to_dict()
    mined = mine_edits(tiny_model, tiny_tokenizer, sources, **OPTIONS)
    alone = mine_edits(tiny_model, tiny_tokenizer, sources, **{**OPTIONS, "batch_size": 1})
    assert tiny_model.training and tiny_model.generation_config.to_dict() == settings
    assert mined.to_list() == alone.to_list() and mined.column_names == ["source", "target", "alternatives"]
    assert [row["source"] for row in mined] == sources["source"][:10]
    tiny_model.eval()
    for row in mined:
        inputs = tiny_tokenizer(row["source"], return_tensors="pt")
        beams = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 6}
        texts = tiny_tokenizer.batch_decode(tiny_model.generate(inputs.input_ids, **beams), skip_special_tokens=True)
        assert row["alternatives"] == [text for text in dict.fromkeys(texts) if text not in ("", row["target"])]


def test_beams_share_what_they_have_in_common(tiny_model, tiny_tokenizer, sources, monkeypatch):
    generate, searches = EncodedSources.generate, []

    def noted(self, model, max_new_tokens, **options):
        searches.append(options)
        return generate(self, model, max_new_tokens, **options)

    monkeypatch.setattr(EncodedSources, "generate", noted)
    mine_edits(tiny_model, tiny_tokenizer, sources, **OPTIONS)
    fast = ["custom_generate" in options for options in searches if options["num_beams"] > 1]
    # Both ways to try the search, then one for each batch.
    assert fast == [True, False, True, True, True]


def test_sampled_tokens_follow_the_tempered_distribution():
    torch.manual_seed(0)
    rows = 20_000
    logits = torch.randn(8) * 2
    logits[3] = -torch.inf
    sampling = SeededSampling(1.2, [np.random.default_rng((7, index)) for index in range(rows)])
    scores = sampling(torch.zeros(rows, 1, dtype=torch.long), logits.expand(rows, -1))
    counts = np.bincount(scores.argmax(-1).numpy(), minlength=8)
    expected = (logits / 1.2).softmax(-1).double().numpy() * rows
    assert counts[3] == 0
    # 24.3 is the 99.9 % point of chi-square with 7 degrees of freedom; here there are 6.
    assert sum((counts[i] - expected[i]) ** 2 / expected[i] for i in range(8) if i != 3) < 24.3


def test_targets_come_from_the_whole_vocabulary_at_the_temperature(tiny_model, tiny_tokenizer, sources):
    tiny_model.generation_config.top_k = 1
    tiny_model.generation_config.max_length = 2
    repeated = sources.select([3] * 3000)
    options = {"num_alternatives": 2, "batch_size": 500}
    mined = mine_edits(tiny_model, tiny_tokenizer, repeated, temperature=2.0, max_new_tokens=1, **options)
    inputs = tiny_tokenizer(repeated[0]["source"], return_tensors="pt")
    with torch.no_grad():
        logits = tiny_model(**inputs, decoder_input_ids=torch.tensor([[2]])).logits[0, 0]
    probabilities = (logits / 2.0).softmax(-1)
    words = {i: tiny_tokenizer.decode([i]) for i in range(4, len(tiny_tokenizer))}
    total = sum(probabilities[i] for i in words)
    counts = Counter(mined["target"])
    for index, word in words.items():
        expected = float(probabilities[index] / total)
        assert abs(counts[word] / len(mined) - expected) < 5 * (expected / len(mined)) ** 0.5 + 1e-3


def test_seed_decides_targets_only(tiny_model, tiny_tokenizer, sources):
    first, again, other = (mine_edits(tiny_model, tiny_tokenizer, sources, seed=seed, **OPTIONS) for seed in (1, 1, 2))
    assert first.to_list() == again.to_list()
    assert first["target"][:] != other["target"][:]


@pytest.mark.parametrize("torn", [True, False])
def test_resumed_equals_uninterrupted(tiny_model, tiny_tokenizer, sources, tmp_path, torn, monkeypatch):
    folder = tmp_path / "mined"
    whole = mine_edits(tiny_model, tiny_tokenizer, sources, **OPTIONS)
    generate = tiny_model.generate
    calls = []

    def interrupted(**options):
        calls.append(options)
        if len(calls) > 6:  # two to try the search, two for each batch
            raise KeyboardInterrupt
        return generate(**options)

    monkeypatch.setattr(tiny_model, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=folder, **OPTIONS)
    journal = folder / JOURNAL_NAME
    assert len(journal.read_text().splitlines()) == 1 + 2 + 8  # arguments, two left out, two batches
    if torn:
        journal.write_bytes(journal.read_bytes()[:-9])
    calls.clear()
    resumed = mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=folder, **OPTIONS)
    assert len(calls) == (6 if torn else 4)  # the torn line's batch, and the last one
    assert resumed.to_list() == whole.to_list() == datasets.load_from_disk(folder).to_list()
    monkeypatch.setattr(tiny_model, "generate", None)  # nothing is decoded again
    finished = mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=folder, **OPTIONS)
    assert finished.to_list() == whole.to_list() and not journal.exists()


def test_other_arguments_in_a_used_folder_raise(tiny_model, tiny_tokenizer, sources, tmp_path):
    mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=tmp_path / "mined", **OPTIONS)
    with pytest.raises(EditableValueError, match="seed was 0 and is now 1; temperature was 1.2 and is now 1.0"):
        mine_edits(
            tiny_model, tiny_tokenizer, sources, output_dir=tmp_path / "mined", temperature=1.0, seed=1, **OPTIONS
        )
    before = fingerprint_model(tiny_model)
    tiny_model.generation_config.length_penalty = 0.5
    assert fingerprint_model(tiny_model) != before
    with pytest.raises(EditableValueError, match=f"model was '{before}'"):
        mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=tmp_path / "mined", **OPTIONS)


def test_useless_alternatives_go_and_are_counted(counted):
    edits, counts = counted("the dog", ["the car", "the dog", "", "the car", "the man"])
    assert [(row["target"], row["alternatives"]) for row in edits] == [("the dog", ["the car", "the man"])]
    assert counts == {
        "sources": 3,
        "empty_sources": 1,
        "long_sources": 1,
        "empty_targets": 0,
        "long_targets": 0,
        "unknown_targets": 0,
        "forbidden_targets": 0,
        "correct_translations": 0,
        "without_alternatives": 0,
        "edits": 1,
        "empty_alternatives": 1,
        "duplicate_alternatives": 1,
        "equal_alternatives": 1,
    }


@pytest.mark.parametrize(
    ("target", "alternatives", "reason"),
    [
        ("", ["the car", "the man"], "empty_targets"),
        ("the dog", ["the dog", ""], "without_alternatives"),
    ],
)
def test_useless_targets_leave_no_edit(counted, target, alternatives, reason):
    with pytest.raises(EditableValueError, match=f"None of the 3 sources gave an edit: .*'{reason}': 1"):
        counted(target, alternatives)


def test_targets_that_cannot_be_read_again_are_left_out(counted, tiny_tokenizer, monkeypatch):
    decode = tiny_tokenizer.batch_decode
    monkeypatch.setattr(
        tiny_tokenizer,
        "batch_decode",
        lambda ids, **options: [text.replace("dog", "d@g") for text in decode(ids, **options)],
    )
    with pytest.raises(EditableValueError, match="'unknown_targets': 1"):
        counted("the dog", ["the car", "the man"])


@pytest.fixture
def corrections(tiny_model, tiny_tokenizer, sources, monkeypatch):
    """Sources with references, of which the second and the fourth are what the model says; it must not sample."""
    generate = tiny_model.generate
    beams = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 6}

    def never_sampled(num_beams, **options):
        assert num_beams == 3
        return generate(num_beams=num_beams, **options)

    said = []
    for source in sources["source"][:6]:
        ids = tiny_tokenizer(source, return_tensors="pt").input_ids
        said.append(tiny_tokenizer.batch_decode(generate(ids, **beams), skip_special_tokens=True))
    monkeypatch.setattr(tiny_model, "generate", never_sampled)
    references = ["the dog .", f" {said[1][0]} ", said[2][1], said[3][0].replace(" ", "  ", 1), "", "the " * 40]
    dataset = sources.select(range(6)).add_column("reference", references)
    options = {"targets": "references", "target_column": "reference", **OPTIONS}
    return said, dataset, lambda data=dataset, **more: mine_edits(tiny_model, tiny_tokenizer, data, **options, **more)


def test_references_are_targets_where_the_model_says_something_else(corrections, tmp_path, monkeypatch):
    said, dataset, mine = corrections
    edits = mine(output_dir=tmp_path / "mined")
    assert edits["source"][:] == [dataset["source"][0], dataset["source"][2]]
    assert edits["target"][:] == ["the dog .", said[2][1]]
    assert edits["alternatives"][0] == [text for text in dict.fromkeys(said[0]) if text]
    assert edits["alternatives"][1] == [text for text in dict.fromkeys(said[2]) if text not in ("", said[2][1])]
    counts = json.loads((tmp_path / "mined" / INFO_NAME).read_text())["counts"]
    reasons = ("edits", "correct_translations", "empty_targets", "long_targets", "unknown_targets")
    assert [counts[name] for name in reasons] == [2, 2, 1, 1, 0] and counts["equal_alternatives"] == 1
    # The seed and the temperature decide nothing here; the references do.
    monkeypatch.setattr("hf_editable.mining.miner.Miner.rows", None)
    again = mine(output_dir=tmp_path / "mined", seed=1, temperature=1.0)
    assert again.to_list() == edits.to_list()
    other = dataset.remove_columns("reference").add_column("reference", ["the man ."] * 6)
    with pytest.raises(EditableValueError, match="references was '.*' and is now '"):
        mine(other, output_dir=tmp_path / "mined")


def test_interrupted_corrections_go_on(corrections, tiny_model, tmp_path, monkeypatch):
    _, _, mine = corrections
    whole, generate = mine(), tiny_model.generate
    calls = []

    def interrupted(**options):
        calls.append(options)
        if len(calls) == 4:  # two to try the search, one for each batch
            raise KeyboardInterrupt
        return generate(**options)

    monkeypatch.setattr(tiny_model, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine(output_dir=tmp_path)
    assert len((tmp_path / JOURNAL_NAME).read_text().splitlines()) == 1 + 4
    assert mine(output_dir=tmp_path).to_list() == whole.to_list() and len(calls) == 4 + 3


def test_folders_from_before_there_were_corrections_are_taken(tiny_model, tiny_tokenizer, sources, tmp_path):
    mined = mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=tmp_path, **OPTIONS)
    path = tmp_path / INFO_NAME
    info = json.loads(path.read_text())
    names = ["batch_size", "max_new_tokens", "model", "num_alternatives", "seed", "sources", "temperature"]
    assert sorted(info["arguments"]) == names
    for name in ("correct_translations", "long_targets"):
        assert info["counts"].pop(name) == 0
    path.write_text(json.dumps(info))
    assert mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=tmp_path, **OPTIONS).to_list() == mined.to_list()
    with pytest.raises(EditableValueError, match="targets was None and is now 'references'"):
        options = {"targets": "references", "target_column": "source", "output_dir": tmp_path, **OPTIONS}
        mine_edits(tiny_model, tiny_tokenizer, sources, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_alternatives": 0}, EditableValueError, "num_alternatives=0: it must be a whole number"),
        ({"batch_size": 1.5}, EditableValueError, "batch_size=1.5: it must be a whole number"),
        ({"temperature": 0.0}, EditableValueError, "temperature=0.0: it must be above 0"),
        ({"num_edits": 0}, EditableValueError, "number of rows to take=0"),
        ({"max_new_tokens": 0}, EditableValueError, "max_new_tokens=0"),
        ({"seed": -1}, EditableValueError, "seed=-1: it must be a whole number, 0 or more"),
        ({"source_column": "text"}, EditableValueError, r"no column 'text' but \['source'\]. Set source_column"),
        ({"targets": "references"}, EditableValueError, r"no column 'target' but \['source'\]. Set target_column"),
        ({"targets": "gold"}, EditableValueError, "targets='gold': choose one of 'sampled', 'references'"),
        ({"dataset": datasets.DatasetDict()}, EditableTypeError, r"of type DatasetDict\. Give a Dataset"),
    ],
)
def test_bad_arguments_raise(tiny_model, tiny_tokenizer, sources, options, error, message):
    with pytest.raises(error, match=message):
        mine_edits(tiny_model, tiny_tokenizer, **{"dataset": sources, **options})


def test_unusable_folders_raise(tiny_model, tiny_tokenizer, sources, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EditableFileError, match="is a file"):
        mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=tmp_path / "notes.txt")
    with pytest.raises(EditableFileError, match="holds other files"):
        mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=tmp_path)
    folder = tmp_path / "mined"
    mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=folder, **OPTIONS)
    (folder / INFO_NAME).write_text("{}")
    with pytest.raises(EditableFileError, match="holds no whole mining_info.json"):
        mine_edits(tiny_model, tiny_tokenizer, sources, output_dir=folder, **OPTIONS)


def test_command(tiny_model, tiny_tokenizer, tiny_pairs, tmp_path, capsys):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    datasets.DatasetDict(train=datasets.Dataset.from_list(tiny_pairs)).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "model"), "--data_dir", str(tmp_path / "data"), "--num_edits", "5"]
    argv += ["--output_dir", str(tmp_path / "edits"), "--num_alternatives", "4", "--max_new_tokens", "6"]
    assert main(argv) == 0
    edits = datasets.load_from_disk(tmp_path / "edits")
    assert 0 < len(edits) <= 5 and set(edits["source"]) <= {pair["source"] for pair in tiny_pairs}
    assert "sources: 5, " in capsys.readouterr().out
    corrections = [*argv, "--output_dir", str(tmp_path / "corrections"), "--targets", "references"]
    assert main(corrections) == 0
    assert "correct translations: 0" in capsys.readouterr().out
    references = {pair["source"]: pair["target"] for pair in tiny_pairs}
    edits = datasets.load_from_disk(tmp_path / "corrections")
    assert len(edits) == 5 and all(row["target"] == references[row["source"]] for row in edits)
    assert main([*argv, "--split", "test"]) == 2
    assert "no pairs in a split 'test'" in capsys.readouterr().err
    assert main([*argv, "--model_name_or_path", str(tmp_path / "missing")]) == 2
    assert "Cannot load" in capsys.readouterr().err
