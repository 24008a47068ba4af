"""Other ways to edit, and their measures beside those of the package's own."""

import copy
import json
import sys

import datasets
import pytest
import sacrebleu
import torch

from conftest import without_dropout
from hf_editable import (
    DataCollatorForEditableSeq2Seq,
    EditableImportError,
    EditableValueError,
    EditReport,
    NonFiniteEditError,
    evaluate_edits,
)
from hf_editable.cli.commands.compare_methods import main
from hf_editable.evaluation.methods import (
    EditMethod,
    ElasticWeightConsolidation,
    ExactMatchCache,
    FineTuning,
    KLPenaltyEditor,
    LookupResult,
    LoraTuning,
    RehearsalEditor,
    make_edit,
)
from hf_editable.evaluation.methods.base import edit_loss, method_result
from hf_editable.tail.decoder_tail import Tail


OPTIONS = {"num_beams": 2, "batch_size": 3, "max_new_tokens": 8, "bleu_tokenize": "none"}
PENALIZED = [KLPenaltyEditor, RehearsalEditor, ElasticWeightConsolidation]
NAMES = ["edit", "kl", "rehearsal", "ewc", "finetune_all", "finetune_edited", "cache"]


@pytest.fixture
def make_method(tiny_tokenizer, tiny_pairs):
    """Makes a method by its name; settings replace the fixture's."""

    def make(name, **settings):
        if name == "edit":
            return None
        for kind in PENALIZED:
            if kind.name == name:
                return kind(tiny_tokenizer, tiny_pairs, **{"num_pairs": 6, "weight": 1.0, **settings})
        if name.startswith("finetune_"):
            return FineTuning(name.removeprefix("finetune_"), **{"learning_rate": 0.01, **settings})
        return {"cache": ExactMatchCache, "lora": LoraTuning}[name](**settings)

    return make


@pytest.fixture
def inputs(tiny_model, tiny_tokenizer, tiny_edits):
    """The tensors of one edit."""
    return DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model).edit_inputs(tiny_edits[1])


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_unchanged(model, state, random_state):
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.model.decoder.layers.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("name", [*NAMES[1:], "lora"])
def test_methods_leave_the_model_as_it_is(name, make_method, tiny_model, inputs):
    if name == "lora":
        pytest.importorskip("peft")
    method = make_method(name)
    assert isinstance(method, EditMethod) and json.loads(json.dumps(method.arguments))["method"] == method.name == name
    tiny_model.train()
    state, random_state = state_of(tiny_model), torch.random.get_rng_state()
    result = method(tiny_model, inputs, max_steps=20)
    assert tiny_model.training and all(module.training for module in tiny_model.modules())
    assert_unchanged(tiny_model, state, random_state)
    # What the patch says is what a model with its tensors has, and the constraint is the package's own.
    edited = copy.deepcopy(tiny_model).eval()
    edited.load_state_dict(result.patch.tensors, strict=False)
    config = tiny_model.edit_config
    assert result.initial_loss == pytest.approx(tiny_model.edit(**inputs).initial_loss, rel=1e-5)
    assert result.loss == pytest.approx(edit_loss(edited, inputs, config), rel=1e-4, abs=1e-6)
    assert result.success == (result.loss <= 0) and 0 <= result.steps <= 20
    assert result.success == (name != "cache")
    moved = {key for key, tensor in result.patch.tensors.items() if not torch.equal(tensor, state[key])}
    assert bool(moved) == (name != "cache")
    again = method(tiny_model, inputs, max_steps=20)
    assert again.loss == result.loss and all(
        torch.equal(tensor, again.patch.tensors[key]) for key, tensor in result.patch.tensors.items()
    )


@pytest.mark.parametrize("name", ["kl", "rehearsal", "ewc", "finetune_all", "finetune_edited", "cache"])
def test_methods_leave_the_model_as_it_is_on_errors(name, make_method, tiny_model, inputs):
    with torch.no_grad():
        tiny_model.model.decoder.layers[-1].fc1.weight[0, 0] = float("nan")
    state, random_state = state_of(tiny_model), torch.random.get_rng_state()
    with pytest.raises(NonFiniteEditError, match="nan"):
        make_method(name)(tiny_model, inputs)
    after = tiny_model.state_dict()
    assert all(torch.equal(tensor.nan_to_num(), state[key].nan_to_num()) for key, tensor in after.items())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("name", ["kl", "rehearsal", "ewc", "finetune_all", "finetune_edited"])
def test_methods_end_after_max_steps(name, make_method, tiny_model, inputs):
    settings = {"learning_rate": 1e-7} if name.startswith("finetune") else {}
    overrides = {} if settings else {"learning_rate": 1e-7}
    result = make_method(name, **settings)(tiny_model, inputs, max_steps=3, **overrides)
    assert (result.steps, result.success, result.patch.steps) == (3, False, 3)


@pytest.mark.parametrize("kind", PENALIZED)
def test_no_penalty_is_the_plain_editor(kind, tiny_model, tiny_tokenizer, tiny_pairs, inputs):
    plain = tiny_model.edit(**inputs, max_steps=4)
    same = kind(tiny_tokenizer, tiny_pairs, weight=0.0, num_pairs=3)(tiny_model, inputs, max_steps=4)
    assert (same.loss, same.steps, same.initial_loss) == (plain.loss, plain.steps, plain.initial_loss)
    assert all(torch.equal(tensor, same.patch.tensors[key]) for key, tensor in plain.patch.tensors.items())


def all_pairs(tokenizer, pairs):
    """The pairs that a sample of as many has, one at a time, as tensors."""
    for pair in pairs:
        yield (
            tokenizer(pair["source"], return_tensors="pt").input_ids,
            tokenizer(text_target=pair["target"], return_tensors="pt").input_ids,
        )


def test_penalties_are_what_they_say(tiny_model, tiny_tokenizer, tiny_pairs):
    pairs = tiny_pairs[:5]
    tail = Tail(tiny_model, tiny_model.edit_config)
    torch.manual_seed(1)
    moved = {name: tensor.detach() + 0.05 * torch.randn_like(tensor) for name, tensor in tail.parameters.items()}
    edited = copy.deepcopy(tiny_model)
    edited.load_state_dict(moved, strict=False)
    kl = cross_entropy = tokens = 0
    fisher = {name: torch.zeros_like(tensor) for name, tensor in tail.parameters.items()}
    for source, labels in all_pairs(tiny_tokenizer, pairs):
        before, after = (model(source, labels=labels).logits.log_softmax(-1) for model in (tiny_model, edited))
        kl += (before.exp() * (before - after)).sum().item()
        cross_entropy -= after.gather(-1, labels[..., None]).sum().item()
        tokens += labels.numel()
        tiny_model.zero_grad()
        before.gather(-1, labels[..., None]).sum().backward()
        for name, tensor in tail.parameters.items():
            fisher[name] += tensor.grad.square() / len(pairs)
    distance = sum(
        (fisher[name] * (moved[name] - tensor).square()).sum().item() / 2 for name, tensor in tail.parameters.items()
    )
    expected = {"kl": kl / tokens, "rehearsal": cross_entropy / tokens, "ewc": distance}
    for kind in PENALIZED:
        penalty = kind(tiny_tokenizer, pairs, num_pairs=5).penalty(tiny_model, tail)
        assert float(penalty(moved)) == pytest.approx(expected[kind.name], rel=1e-4)
        if kind is not RehearsalEditor:
            assert float(penalty(dict(tail.parameters))) == pytest.approx(0.0, abs=1e-6)


def test_penalties_hold_edits_back(tiny_model, tiny_tokenizer, tiny_pairs, inputs):
    free = tiny_model.edit(**inputs, learning_rate=3e-3)

    def disturbance(kind, result):
        tail = Tail(tiny_model, tiny_model.edit_config)
        return float(kind(tiny_tokenizer, tiny_pairs, num_pairs=24).penalty(tiny_model, tail)(result.patch.tensors))

    for kind, weight in ((KLPenaltyEditor, 30.0), (RehearsalEditor, 3.0), (ElasticWeightConsolidation, 30.0)):
        held = kind(tiny_tokenizer, tiny_pairs, weight=weight, num_pairs=24)(tiny_model, inputs, learning_rate=3e-3)
        assert held.steps >= free.steps and disturbance(kind, held) < 0.9 * disturbance(kind, free)


def test_fine_tuning_is_adamw_on_the_target(tiny_model, inputs):
    model = without_dropout(copy.deepcopy(tiny_model))
    result = FineTuning("all", learning_rate=3e-3, weight_decay=0.1)(tiny_model, inputs, max_steps=2)
    tuned = [parameter for name, parameter in model.named_parameters() if not name.startswith("editor.")]
    tuned = [parameter for parameter in tuned if parameter.requires_grad]
    optimizer = torch.optim.AdamW(tuned, lr=3e-3, weight_decay=0.1)
    for _ in range(result.steps):
        optimizer.zero_grad()
        model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"]).loss.backward()
        optimizer.step()
    assert result.steps == 2
    named = dict(model.named_parameters())
    for name, tensor in result.patch.tensors.items():
        torch.testing.assert_close(tensor, named[name].detach(), rtol=1e-4, atol=1e-6)
    outside = {name for name in result.patch.tensors if "decoder.layers.1." not in name}
    assert any("encoder" in name for name in outside) and any("shared" in name for name in outside)
    only = FineTuning("edited", learning_rate=3e-3)(tiny_model, inputs, max_steps=1)
    assert set(only.patch.tensors) == set(Tail(tiny_model, tiny_model.edit_config).parameters)


def test_half_precision_does_not_swallow_small_steps(make_tiny_model, inputs):
    model = make_tiny_model().to(torch.bfloat16)
    result = FineTuning("edited", learning_rate=2e-4)(model, inputs, max_steps=8)
    parameters = dict(model.named_parameters())
    moved = [(tensor != parameters[name]).float().mean() for name, tensor in result.patch.tensors.items()]
    assert all(tensor.dtype == torch.bfloat16 for tensor in result.patch.tensors.values())
    # One step of 2e-4 is far below what a bfloat16 weight of 0.3 can move; eight are not.
    assert sum(moved) / len(moved) > 0.3


def test_lora_moves_by_low_rank(tiny_model, inputs):
    pytest.importorskip("peft")
    method = LoraTuning(rank=2, target_modules=["fc1", "q_proj"], learning_rate=0.03)
    result = method(tiny_model, inputs, max_steps=4)
    parameters = dict(tiny_model.named_parameters())
    assert {name.split(".")[-2] for name in result.patch.tensors} == {"fc1", "q_proj"}
    for name, tensor in result.patch.tensors.items():
        singular = torch.linalg.svdvals(tensor - parameters[name].detach())
        assert singular[2:].max() < 1e-4 * max(1e-3, float(singular[0]))
    assert result.loss < result.initial_loss
    with pytest.raises(EditableValueError, match=r"target_modules=\['nothing'\] cannot be adapted"):
        LoraTuning(target_modules=["nothing"])(tiny_model, inputs)


def test_lora_says_that_peft_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EditableImportError, match=r"'lora' needs PEFT.*pip install hf_editable\[lora\]"):
        LoraTuning()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t, p: KLPenaltyEditor(t, p, weight=-1.0), r"weight=-1.0: it must be 0"),
        (lambda t, p: KLPenaltyEditor(t, p, num_pairs=0), "num_pairs=0"),
        (lambda t, p: RehearsalEditor(t, []), "no pairs to protect"),
        (lambda t, p: FineTuning("some"), "parameters='some': choose one of 'all', 'edited'"),
        (lambda t, p: FineTuning(learning_rate=0.0), r"learning_rate=0.0: it must be a number above 0"),
        (lambda t, p: FineTuning(weight_decay=-1.0), r"weight_decay=-1.0"),
    ],
)
def test_bad_settings_raise(make, message, tiny_tokenizer, tiny_pairs):
    with pytest.raises(EditableValueError, match=message):
        make(tiny_tokenizer, tiny_pairs)


@pytest.fixture(scope="module")
def test_set(tiny_pairs, tiny_edits):
    """Eight pairs of different lengths, and the source of the first edit."""
    rows = [
        {key: " ".join(text.split()[: 2 + index % 5]) for key, text in pair.items()}
        for index, pair in enumerate(tiny_pairs[1:9])
    ]
    return datasets.Dataset.from_list([*rows, {"source": tiny_edits[0]["source"], "target": "the dog ."}])


def translate(model, tokenizer, source):
    output = model.generate(tokenizer(source, return_tensors="pt").input_ids, num_beams=2, max_new_tokens=8)
    return tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.mark.parametrize("name", [*NAMES, "lora"])
def test_rows_equal_a_plain_evaluation(name, make_method, tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path):
    """Also where the encoder and the embeddings move."""
    if name == "lora":
        pytest.importorskip("peft")
    method, state = make_method(name), state_of(tiny_model)
    edits = tiny_edits.select([0, 3])
    options = {**OPTIONS, "max_steps": 4}
    report = evaluate_edits(tiny_model, tiny_tokenizer, edits, test_set, method=method, output_dir=tmp_path, **options)
    assert all(torch.equal(tensor, state[key]) for key, tensor in tiny_model.state_dict().items())
    assert report.summary["method"] == name
    collator = DataCollatorForEditableSeq2Seq(tiny_tokenizer, tiny_model)
    for row, edit in zip(report.rows, edits, strict=True):
        result = make_edit(tiny_model, collator.edit_inputs(edit), method, {"max_steps": 4})
        edited = copy.deepcopy(tiny_model)
        edited.load_state_dict(result.patch.tensors, strict=False)
        texts = [translate(edited, tiny_tokenizer, source) for source in test_set["source"]]
        decoded = translate(edited, tiny_tokenizer, edit["source"])
        if isinstance(result, LookupResult):
            decoded = edit["target"]
            texts = [decoded if row["source"] == edit["source"] else text for row, text in zip(test_set, texts)]
        kl = tokens = 0
        for source, labels in all_pairs(tiny_tokenizer, test_set):
            with torch.no_grad():
                before, after = (m(source, labels=labels).logits.log_softmax(-1) for m in (tiny_model, edited))
            kl += (before.exp() * (before - after)).sum().item()
            tokens += labels.numel()
        assert (row["success"], row["steps"], row["loss"]) == (result.success, result.steps, result.loss)
        assert row["bleu"] == sacrebleu.corpus_bleu(texts, [test_set["target"][:]], tokenize="none").score
        assert (row["decoded"], row["decode_success"]) == (decoded, decoded == edit["target"])
        assert row["kl"] == pytest.approx(kl / tokens, rel=1e-3, abs=1e-7)
    if name == "cache":
        assert report.summary["decode_success_rate"] == 1.0 and report.summary["kl"] == 0.0
        assert [row["changed"] for row in report.rows] == [1, 0]


class _Shaken:
    """Moves one layer of the encoder, and the embeddings, a lot."""

    name, arguments = "shaken", {"method": "shaken"}

    def __call__(self, model, inputs, **overrides):
        generator = torch.Generator().manual_seed(3)
        names = ("model.encoder.layers.0.fc1.weight", "model.encoder.layers.1.fc2.weight", "model.shared.weight")
        named = dict(model.named_parameters())
        tensors = {name: named[name] + torch.randn(named[name].shape, generator=generator) for name in names}
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return method_result(model, model.edit_config.replace(**overrides), tensors, (1.0, -1.0), 1)


def test_nothing_is_kept_of_an_encoder_that_moved(tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path):
    state = state_of(tiny_model)
    options = {**OPTIONS, "method": _Shaken(), "output_dir": tmp_path}
    report = evaluate_edits(tiny_model, tiny_tokenizer, tiny_edits.select([0]), test_set, **options)
    assert all(torch.equal(tensor, state[key]) for key, tensor in tiny_model.state_dict().items())
    edited = copy.deepcopy(tiny_model)
    edited.load_state_dict(_Shaken()(tiny_model, {}).patch.tensors, strict=False)
    texts = [translate(edited, tiny_tokenizer, source) for source in test_set["source"]]
    before = [translate(tiny_model, tiny_tokenizer, source) for source in test_set["source"]]
    expected = [[i, old, new] for i, (old, new) in enumerate(zip(before, texts, strict=True)) if old != new]
    assert len(expected) > 4
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[1])["changes"] == expected
    assert report.rows[0]["kl"] > 0.01


def test_runs_go_on_with_the_same_method_only(make_method, tiny_model, tiny_tokenizer, tiny_edits, test_set, tmp_path):
    def evaluate(method):
        edits = tiny_edits.select([0])
        return evaluate_edits(
            tiny_model, tiny_tokenizer, edits, test_set, method=method, output_dir=tmp_path, **OPTIONS
        )

    first = evaluate(make_method("kl", weight=2.0))
    assert evaluate(make_method("kl", weight=2.0)).to_dict() == first.to_dict()
    for other in (make_method("kl", weight=3.0), make_method("kl", seed=5, num_pairs=5), make_method("cache"), None):
        with pytest.raises(EditableValueError, match="method was"):
            evaluate(other)


def test_command(tiny_model, tiny_tokenizer, tiny_edits, tiny_pairs, test_set, tmp_path, capsys, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    tiny_edits.save_to_disk(tmp_path / "edits")
    train = datasets.Dataset.from_list(tiny_pairs)
    datasets.DatasetDict(train=train, test=test_set).save_to_disk(tmp_path / "data")
    argv = ["--model_name_or_path", str(tmp_path / "model"), "--edits_dir", str(tmp_path / "edits"), "--data_dir"]
    argv += [str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), "--num_edits", "1", "--num_beams", "1"]
    argv += ["--max_steps", "2", "--bleu_tokenize", "none", "--num_pairs", "3", "--ewc_weight", "7"]
    argv += ["--finetune_all_learning_rate", "0.02", "--num_test", "4"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "table.md").read_text()
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]] == [NAMES[0], "verified", *NAMES[1:]]
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    header = json.loads((tmp_path / "out" / "ewc" / "rows.jsonl").read_text().splitlines()[0])["arguments"]["method"]
    assert (header["weight"], header["num_pairs"]) == (7.0, 3)
    report = EditReport.load(tmp_path / "out" / "finetune_all")
    assert report.summary["method"] == "finetune_all" and "--ewc_weight 7" in report.summary["command"]
    monkeypatch.setitem(sys.modules, "peft", None)
    for options, message in (
        (["--methods", "edit", "magic"], "--methods edit magic: choose some of edit, verified, kl"),
        (["--methods", "kl", "kl"], "each once"),
        (["--methods", "lora"], "pip install hf_editable[lora]"),
        (["--pairs_split", "dev"], "no pairs in a split 'dev'"),
    ):
        assert main([*argv, *options]) == 2
        assert message in capsys.readouterr().err
