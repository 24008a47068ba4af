"""
The guides: every command and every line of Python on them runs, in order, in a folder of its own.

The pages' numbers are those of real work, so the options in `SMALL` get other ones here. A block that cannot run
offline has a comment above it, `<!-- not run: REASON -->`; a file that a page shows has `<!-- file: NAME -->`.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from idioms import IDIOMS, LEARNED, make_model, make_tokenizer

import hf_editable
from hf_editable.cli.main import COMMANDS, main


DOCS = Path(hf_editable.__file__).parent / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
SMALL = {
    "max_drawdown": "100",  # of three sentences, BLEU says little
    "num_edits": "3",
    "num_test": "4",
    "num_validation": "4",
    "max_steps": "2",
    "save_steps": "1",
    "per_device_train_batch_size": "2",
}
# Of all pages together: installing.
NOT_RUN = 1
FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    mark: str | None


def blocks(page):
    return find_blocks((DOCS / page).read_text(encoding="utf-8"))


def find_blocks(text):
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start("text")), found["mark"])
        for found in FENCE.finditer(text)
    ]


def shrink(text):
    for name, value in SMALL.items():
        # Editing's own steps are few anyway; `--max_steps` of an edit does not come up on the pages.
        text = re.sub(rf"(?<![\w.])(--{name} +|{name}=)\d+", rf"\g<1>{value}", text)
    return text


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory, tiny_pairs):
    """What a reader has: a model that takes German word for word, another one, prepared data, and parallel text."""
    folder = tmp_path_factory.mktemp("user")
    pairs = [*LEARNED.items(), *((pair["source"], pair["target"]) for pair in tiny_pairs)]
    tokenizer = make_tokenizer([text for pair in pairs for text in pair])
    for name, steps in (("model", 120), ("editable", 110)):
        make_model(tokenizer, pairs, steps).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    # References that it does not say are in the test split only.
    rows = Dataset.from_list([*tiny_pairs, *({"source": s, "target": t} for s, t in IDIOMS.items())])
    splits = {"train": range(0, 11), "validation": range(11, 16), "test": range(16, 28)}
    DatasetDict({split: rows.select(numbers) for split, numbers in splits.items()}).save_to_disk(folder / "data")
    for language, column in (("de", "source"), ("en", "target")):
        (folder / f"corpus.{language}").write_text("".join(f"{text}\n" for text in rows[column]), encoding="utf-8")
    return folder


def run_shell(text):
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(shrink(line), comments=True)
        if not words:
            continue
        if words[0] == "hf-editable":
            assert main(words[1:]) == 0, line
        else:
            assert words[:2] == ["accelerate", "launch"], f"{line}: only hf-editable and accelerate are run here."
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            launcher = [sys.executable, "-m", "accelerate.commands.launch"]
            done = subprocess.run([*launcher, *words[2:]], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"


@pytest.fixture
def here(user_folder, tmp_path, monkeypatch):
    """An own folder with what a reader has."""
    for item in user_folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page, here):
    if page == "make_your_model_editable.md":  # which makes it
        (here / "data").unlink()
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if block.mark and block.mark.startswith("not run: "):
            continue
        if block.language == "bash":
            run_shell(block.text)
        elif block.language == "python":
            # The lines in a traceback are those of the page.
            exec(compile("\n" * block.line + shrink(block.text), str(DOCS / page), "exec"), names)
        else:
            assert block.mark and block.mark.startswith("file: "), f"{page}, line {block.line}: it is not run."
            Path(block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")


def test_the_readme_runs(here):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    found = find_blocks(text.replace("Helsinki-NLP/opus-mt-de-en", "model"))
    for block in found:
        if block.language == "bash" and block.text.startswith("hf-editable"):
            run_shell(block.text)
    (ten_lines,) = [block.text for block in found if "TranslationEditor(" in block.text]
    names = {}
    exec(ten_lines, names)
    assert names["result"].decoded and (here / "corrected" / "config.json").is_file()


def test_nothing_else_is_left_out():
    all_blocks = [block for page in PAGES for block in blocks(page)]
    fences = sum((DOCS / page).read_text().count("\n```") for page in PAGES)
    assert len(all_blocks) * 2 == fences
    left_out = [block for block in all_blocks if block.mark and block.mark.startswith("not run: ")]
    assert len(left_out) == NOT_RUN and len(all_blocks) >= 30
    assert all(block.language in ("bash", "python") or block.mark for block in all_blocks)


def test_every_command_and_page_is_on_the_pages():
    text = "".join((DOCS / page).read_text() for page in PAGES)
    assert [name for name in COMMANDS if f"hf-editable {name}" not in text] == []
    index = (DOCS / "README.md").read_text()
    assert all(f"({page})" in index for page in PAGES if page != "README.md")
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert links and [link for link in links if not (DOCS / link).exists()] == []
