"""Interrupts and threads: a model is as before a change or as after it, and one thread at a time has it."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from hf_editable import TranslationEditor
from hf_editable.patches.application import changed
from hf_editable.patches.changes import Whole


TESTS = Path(__file__).parent
INTERRUPTS = 100  # beside those of test_interrupts.py, at every instruction


def test_real_interrupts_at_any_moment_leave_the_model_as_before_or_as_after():
    command = [sys.executable, TESTS / "interrupted_edits.py", str(INTERRUPTS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rng, sent = random.Random(0), 0
    for line in process.stdout:
        if line != "armed\n":
            break
        time.sleep(rng.uniform(0, 0.008))
        process.send_signal(signal.SIGINT)
        sent += 1
    _, errors = process.communicate()
    assert line.startswith("ok ") and process.returncode == 0, (line, errors[-2000:])
    # Some came while the model was changed, and some while it was not.
    assert sent == INTERRUPTS and 0 < int(line.split()[1]) < INTERRUPTS


def test_translations_wait_for_a_thread_that_has_changed_the_model(tiny_model, tiny_tokenizer, tiny_pairs):
    editor = TranslationEditor(tiny_model, tiny_tokenizer, num_beams=2)
    sources = [pair["source"] for pair in tiny_pairs[:4]]
    expected, name = editor.translate(sources), "model.decoder.layers.1.fc2.weight"
    own = tiny_model.get_parameter(name).detach().clone()
    other = {name: -3 * own}
    with changed(tiny_model, [Whole(other)]):
        assert editor.translate(sources) != expected
    stop, said = threading.Event(), []

    def edit():
        while not stop.is_set():
            with changed(tiny_model, [Whole(other)]):
                time.sleep(0.002)

    worker = threading.Thread(target=edit)
    worker.start()
    try:
        for _ in range(15):
            said.append(editor.translate(sources))
            batch = tiny_tokenizer(sources[0], return_tensors="pt")
            output = tiny_model.generate(**batch, num_beams=2)
            said.append([tiny_tokenizer.decode(output[0], skip_special_tokens=True), *expected[1:]])
    finally:
        stop.set()
        worker.join()
    assert said == [expected] * len(said)
    assert torch.equal(tiny_model.get_parameter(name), own)
