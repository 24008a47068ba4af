"""The benchmark: both ways do the same, and what is measured is written down."""

import dataclasses
import json
import multiprocessing
import os
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from benchmark import BenchmarkArguments, main

import benchmarks as benchmark
from benchmarks import memory, parts, plain, processes, timing
from benchmarks.workload import joined
from hf_editable import EditableError, EditConfig


@pytest.fixture(scope="module")
def workload():
    """A small model of the timed kind."""
    shape = {"vocab_size": 500, "encoder_layers": 1, "decoder_layers": 2, "num_alternatives": 4}
    return benchmark.Workload(**shape, length=8, batch_tokens=32, max_steps=3, learning_rate=1e-4)


@pytest.fixture(scope="module")
def model(workload):
    return workload.model()


@pytest.fixture
def forked(monkeypatch):
    """Processes start as copies of this one: it takes seconds to import everything anew."""
    for module in (memory, processes):
        monkeypatch.setattr(module, "FRESH", multiprocessing.get_context("fork"))


def test_workloads_repeat_themselves(workload, model):
    again = workload.model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    first, second = workload.edits(model, 2), workload.edits(again, 2)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert first[0]["alternative_labels"].shape[:2] == (1, 4)
    assert not torch.equal(first[0]["input_ids"], first[1]["input_ids"])


def test_the_plain_edit_is_the_packages(workload, model):
    for inputs in workload.edits(model, 2):
        ours, expected = model.edit(**inputs), plain.edit(model, inputs)
        assert ours.steps == expected.steps > 0
        assert ours.loss == pytest.approx(expected.loss.item(), abs=1e-3)
        assert set(ours.patch.tensors) == set(expected.parameters)


def test_the_plain_objective_is_the_packages(workload, model):
    model.edit_config = EditConfig(learning_rate=1e-6, max_steps=2, length_penalty=1.0, c_edit=1.0, c_loc=10.0)
    batch, edits = workload.batch(model), workload.edits(model, 2)
    ours, expected = model(**batch, **joined(edits)), plain.objective(model, batch, edits)
    assert ours.edit_loss > 0 and ours.edit_steps == 2
    torch.testing.assert_close(ours.loss, expected, rtol=1e-4, atol=1e-5)


def test_every_way_is_timed_in_turn():
    calls = []
    seconds = timing.in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 2, torch.device("cpu"))
    assert calls == list("baabba") and [len(times) for times in seconds.values()] == [2, 2]


def test_operations_are_those_of_matrix_products():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    counted = timing.operations({"once": lambda: left @ right, "twice": lambda: left @ right + left @ right})
    assert counted == {"once": 2 * 3 * 5 * 7, "twice": 4 * 3 * 5 * 7}


def test_ways_that_do_not_do_the_same_are_not_timed(workload, monkeypatch):
    outcome = plain.PlainOutcome({}, torch.tensor(-1.0), 99)
    monkeypatch.setattr(plain, "edit", lambda model, inputs: outcome)
    with pytest.raises(EditableError, match="Steps of an edit: .* here, 99 by the plain way"):
        benchmark.measure_edit(workload, edits=1, repeats=1)


def test_mining_that_finds_something_else_is_not_timed(workload, monkeypatch):
    monkeypatch.setattr("benchmarks.mining._one", lambda *args, **kwargs: "nothing")
    with pytest.raises(EditableError, match="agree on 0% of the most likely translations"):
        benchmark.measure_mining(workload, sources=3, one_in=2, repeats=1)


def test_scaling_starts_from_the_first_value(workload):
    rows = benchmark.measure_scaling(workload, {"decoder_layers": (1, 3)}, repeats=1)
    assert [row["what"] for row in rows] == ["edit of 3 steps, decoder_layers 1", "edit of 3 steps, decoder_layers 3"]
    assert rows[0]["ratio"] == 1.0 and rows[1]["ratio"] > 0


def test_full_edits_take_all_their_steps(workload):
    model, inputs = parts.full_edit(dataclasses.replace(workload, max_steps=5))
    assert model.edit(**inputs).steps == 5


@pytest.mark.skipif(not memory._CLEAR.exists(), reason="needs the /proc of Linux")
def test_peak_memory_is_that_of_what_runs():
    size = 64 * 2**20
    held = torch.ones(size // 4)
    _, peak = memory._peak(lambda: torch.ones(size // 4).sum().item(), torch.device("cpu"))
    assert 0.9 * size < peak < 1.5 * size and held.sum() > 0


@pytest.mark.skipif(not memory._CLEAR.exists(), reason="needs the /proc of Linux")
def test_the_command(tmp_path, capsys):
    sizes = ["--vocab_size", "500", "--encoder_layers", "1", "--decoder_layers", "2", "--num_alternatives", "4"]
    sizes += ["--length", "8", "--batch_tokens", "32", "--max_steps", "2", "--repeats", "1", "--num_edits", "1"]
    sizes += ["--num_sources", "16", "--edits_per_step", "1", "2", "--num_threads", "1", "--learning_rate", "1e-6"]
    options = ["--output_dir", str(tmp_path / "out"), "--parts", "edit", "step", "mining"]
    assert main([*options, *sizes]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["part"] for row in report["rows"]] == ["edit", "step", "step", "mining"]
    assert report["summary"]["machine"] and report["summary"]["versions"]["torch"] == torch.__version__
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out and "training step, edits_per_step 2" in table
    edit, step = report["rows"][0], report["rows"][1]
    assert edit["package_operations"] < edit["plain_operations"] < step["plain_operations"] * 10
    assert step["plain_operations"] < step["package_operations"] and "GFLOP)" in table
    assert main(["--output_dir", str(tmp_path / "other"), "--parts", "speed"]) == 2
    assert "choose from edit, step, mining, memory, scaling, processes" in capsys.readouterr().err


@pytest.mark.skipif(not memory._CLEAR.exists(), reason="needs the /proc of Linux")
def test_memory_of_each_way(workload, forked):
    rows = benchmark.measure_memory(workload, max_steps=(1,), ways=("package", "plain"), vocab_sizes=(500,))
    assert [row["part"] for row in rows] == ["memory"] * 2
    assert rows[0]["package_bytes"] > 0 and rows[0]["plain_bytes"] > 0 and rows[1]["package_bytes"] > 10**8
    text = benchmark.table(rows)
    assert "| peak memory (MB) | package | plain |" in text and "edit of 3 steps, vocab_size 500 |" in text


def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_new_processes_hold_nothing_of_this_one():
    assert memory.in_new_process(len, "new") == 3
    assert memory.FRESH.get_start_method() == processes.FRESH.get_start_method() == "spawn"


@pytest.mark.skipif(not memory._CLEAR.exists(), reason="needs the /proc of Linux")
def test_a_way_that_memory_is_too_small_for(workload, forked, monkeypatch):
    with pytest.raises(BrokenProcessPool):
        memory.in_new_process(killed)
    run = memory.in_new_process

    def only_the_package(work, *arguments):
        return run(killed if "plain" in arguments else work, *arguments)

    monkeypatch.setattr(memory, "in_new_process", only_the_package)
    rows = benchmark.measure_memory(workload, max_steps=(1,), ways=("package", "plain"), vocab_sizes=())
    assert rows[0]["plain_bytes"] is None and rows[0]["package_bytes"] > 0
    assert "| more than there was |" in benchmark.table(rows)


def test_processes_edit_at_once(workload, forked):
    rows = benchmark.measure_processes(workload, processes=(1, 2), edits=3)
    assert [row["what"].split(", ")[1].split(" with")[0] for row in rows] == ["processes 1", "processes 2"]
    assert rows[0]["ratio"] == 1.0
    (start, end), (other_start, other_end) = rows[1]["spans"]
    assert start < other_end and other_start < end
    assert rows[1]["package_seconds"] == pytest.approx((max(end, other_end) - min(start, other_start)) / 6)


def test_the_commands_defaults_are_those_of_the_workload():
    defaults = {field.name: field.default for field in dataclasses.fields(benchmark.Workload)}
    declared = {field.name: field.default for field in dataclasses.fields(BenchmarkArguments)}
    assert defaults.items() <= declared.items()
