"""One soak: the store, what it must hold, and processes that work on it."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .bed import BEAMS, Disk
from .observer import Observer, files_of, hash_of, listed
from .rules import Attempt, Edit, Ledger, Violation
from .workers import Outcome, Process, command


SIGNALLED = {"kill": 0.5, "interrupt": 0.35, "terminate": 0.15}


class Run:
    """
    A store, and an account of what it must hold.

    Args:
        model (`Path`): the checkpoint that all edits are of.
        disk ([`Disk`]): where the store is.
        scratch (`Path`): where everything else goes.
        observer ([`Observer`]): says what the store promises.

    Attributes:
        draw (`random.Random`): of the operation that is running, which depends on the seed and its number alone.
        counts (`Counter`): operations by name, signals, and refusals.
        hash (`str`): of the model's weights with all edits of the store.
    """

    def __init__(self, model: Path, disk: Disk, scratch: Path, observer: Observer):
        self.model, self.disk, self.scratch, self.observer = model, disk, scratch, observer
        self.store = disk.folder / "held" / "store"
        self.store.parent.mkdir()
        self.ledger, self.hash = Ledger(), hash_of(observer.base)
        self.draw, self.counts = random.Random(), Counter()
        self._usual: dict[str, float] = {}
        self._before: dict[str, bytes] = {}
        self._started: list[Process] = []

    @property
    def edits(self) -> list[Edit]:
        """What the store must list now."""
        return self.ledger.edits

    def start(self, *argv: object, json: bool = True, **limits: float | None) -> Process:
        """Start a command of `hf-editable`; see [`Process`] for the limits."""
        words = [*(["--json"] if json else []), *map(str, argv)]
        return self.work(" ".join(["hf-editable", *words]), command(words), **limits)

    def work(self, what: str, work: Callable[[], int], **limits: float | None) -> Process:
        """Start something else."""
        self._started.append(Process(what, work, self.scratch, **limits))
        return self._started[-1]

    def end(self, process: Process, name: str, signal: str | None = None) -> Outcome:
        """
        Send a process a signal at a random moment of what it usually takes, and wait for its end.

        Args:
            process ([`Process`]): the process.
            name (`str`): what it does, for the time that it takes.
            signal (`str`, *optional*): which signal; `None` sends none.
        """
        if signal is not None:
            process.send(signal, self.draw.random() * 1.1 * self._usual.get(name, 0.5))
        outcome = process.wait()
        if outcome.signal is None:
            self._usual[name] = 0.7 * self._usual.get(name, outcome.seconds) + 0.3 * outcome.seconds
        else:
            self.counts[f"signal: {outcome.signal}"] += 1
        if outcome.code in (1, 2, 3):
            self.counts[f"exit code {outcome.code}"] += 1
        return outcome

    def signal(self, chance: float) -> str | None:
        """A signal with this chance."""
        if self.draw.random() >= chance:
            return None
        return self.draw.choices(list(SIGNALLED), list(SIGNALLED.values()))[0]

    def settle(self, *attempts: Attempt, clean: bool = False) -> None:
        """
        Hold what the store has now against what it must have.

        Args:
            attempts ([`Attempt`]): what was asked of it since the last time.
            clean (`bool`): whether the last one that wrote has ended well, and so has left nothing of others.

        Raises:
            Violation: if something does not hold.
        """
        now = listed(self.store)
        self.ledger.settle(now, attempts)
        self.hash = self.observer.check_store(self.store, now)
        self.observer.check_base()
        if clean:
            self.observer.check_clean(self.store)
        # Finished edits that could not come into the store, for whoever made them.
        for place in self.store.parent.glob(f"{self.store.name}.not_added-*"):
            self.observer.patched(place, self.observer.base)
            shutil.rmtree(place)
            self.counts["finished edits saved beside the store"] += 1

    def meaning(self, clone: Path | None = None) -> dict[str, bytes]:
        """The files that count of the store, or of a clone of it: what a process that was cut off left does not."""
        folders = {edit.folder for edit in self.edits}
        return {
            name: content
            for name, content in files_of(clone or self.store).items()
            if name != ".store.json.new" and (not name.startswith("edits/") or name.split("/")[1] in folders)
        }

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """
        What is done in the block leaves the store as it is.

        Raises:
            Violation: if it does not.
        """
        before = self.meaning()
        yield
        self.check_unchanged(before)

    def check_unchanged(self, before: dict[str, bytes], outcome: Outcome | None = None) -> None:
        """
        Args:
            before (`dict[str, bytes]`): what `meaning` was.
            outcome ([`Outcome`], *optional*): of what was refused since then.

        Raises:
            Violation: if the store is not what it was. An empty one may have come where there was none.
        """
        after = self.meaning()
        differing = sorted(name for name in before | after if before.get(name) != after.get(name))
        if differing and (before or listed(self.store)):
            raise Violation(f"{differing} have changed, by what only reads, or was refused: {outcome}")

    def refuse(self, *argv: object, codes: Sequence[int] = (1,)) -> Outcome:
        """
        Run a command that is to be refused, and to change nothing.

        Raises:
            Violation: if it is not.
        """
        with self.unchanged():
            outcome = self.end(self.start(*argv, json=self.draw.random() < 0.5), argv[0])
        if outcome.code not in codes:
            raise Violation(f"not refused: {outcome}")
        return outcome

    def read(self, *argv: object) -> Outcome:
        """
        Run a command that reads the store, and is to succeed.

        Raises:
            Violation: if it fails, or changes something.
        """
        with self.unchanged():
            outcome = self.end(self.start(*argv), argv[0])
        if outcome.code != 0:
            raise Violation(f"refused: {outcome}")
        return outcome

    def editing(self, source: str, target: str, store: Path | None = None) -> list[object]:
        """The arguments that correct a translation, in this store or another one."""
        options = ["--model_name_or_path", self.model, "--store", store or self.store, "--num_beams", BEAMS]
        return ["edit", "--source", source, "--target", target, *options]

    def reverting(self, id: str, *options: object) -> list[object]:
        """The arguments that take back an edit."""
        return ["revert", id, "--store", self.store, "--num_beams", BEAMS, *options]

    def remember(self) -> None:
        """Keep the store as it is, as evidence of what comes next."""
        self._before = files_of(self.store)

    def keep_evidence(self, folder: Path) -> None:
        """Write the store as it was, and as it is now."""
        for name, content in self._before.items():
            (folder / "before" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "before" / name).write_bytes(content)
        shutil.copytree(self.store.parent, folder / "after", symlinks=True, dirs_exist_ok=True)

    def forget(self) -> None:
        """Remove what an operation has written beside the store."""
        self._started.clear()
        for left in self.scratch.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()

    def place(self, name: str) -> Path:
        """A place in the scratch folder where nothing is."""
        return self.scratch / f"{name}-{time.monotonic_ns()}"

    def begin_anew(self) -> None:
        """End what still runs, throw the store away, and put the base model back if it is not what it was."""
        for process in self._started:
            process.stop()
        shutil.rmtree(self.store.parent)
        self.store.parent.mkdir()
        self.ledger, self.hash = Ledger(), hash_of(self.observer.base)
        self.observer.restore_base()


def edit_attempt(outcome: Outcome, source: str, target: str) -> Attempt:
    """What a command that was to make one edit says of it."""
    asked = (((source, target),),)
    if outcome.code == 0:
        return Attempt(asked, added=[outcome.values["id"]], acknowledged=1)
    return Attempt(asked, unfinished=outcome.cut_off)


def revert_attempt(outcome: Outcome, id: str) -> Attempt:
    """What a command that was to take back an edit says of it."""
    taken = frozenset([id])
    return Attempt(removed=taken) if outcome.code == 0 else Attempt(removing=taken, unfinished=outcome.cut_off)
