"""The page in a browser: what a user does on it, and what one who means harm cannot do."""

import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from selenium import webdriver

from hf_editable import EditableValueError, EditPatch, TranslationEditor
from hf_editable.app.page import Page
from hf_editable.app.server import PageServer, logger
from hf_editable.app.sessions import Sessions
from hf_editable.operations.gate.impact import ImpactGate


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
# It runs in a container, and asks no server of its maker for anything.
CHROMIUM_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SOURCE, TARGET = "der hund sieht den ball .", "the dog sees the ball ."
SECOND = "der mann malt den tisch .", "the man paints the table ."
HOSTILE = "<img src=x onerror=document.title='hacked'> ${document.title='hacked'} {{value}}"


@pytest.fixture(scope="module")
def app(make_tiny_model, tiny_tokenizer, tiny_pairs, tmp_path_factory):
    """A running server: its address, its workbench and its editor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_IS_E2E_TEST", "1")  # sessions of closed tabs end at once, not in an hour
        for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            patch.setenv(name, "")  # which the page sets: put back in the end
        model = make_tiny_model()
        model.edit_config = model.edit_config.replace(num_alternatives=2, max_steps=3)
        editor = TranslationEditor(model, tiny_tokenizer, num_beams=2)
        editor.edit = functools.partial(editor.edit, max_rounds=3)
        gate = ImpactGate(editor, tiny_pairs[:4], max_lost=None)
        workbench = Sessions(editor, tmp_path_factory.mktemp("app"), gate, max_characters=100)
        page = Page(workbench, examples=[SOURCE])
        server = PageServer(page, port=None)
        yield server.address, workbench, editor
        server.close()


class Browser:
    """Chromium, with the elements of the page by their ids."""

    def __init__(self, address, downloads):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (*CHROMIUM_ARGUMENTS, f"--user-data-dir={downloads / f'profile-{time.monotonic_ns()}'}"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
        self.address = address
        self.open()

    def open(self):
        self.driver.get(self.address)
        self.until(lambda: self.all("#he-source textarea"))

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, name):
        return "".join(element.text for element in self.all(f"#{name}"))

    def value(self, name):
        return self.all(f"#{name} textarea")[0].get_attribute("value")

    def fill(self, name, text):
        # As a user does: clear() would not tell the page.
        self.all(f"#{name} textarea")[0].send_keys("\ue009a\ue000\ue017" + text)  # Ctrl+A, Delete

    def click(self, name):
        button = self.all(f"#{name}")[0]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        self.until(button.is_enabled)
        button.click()

    def until(self, condition):
        waited = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < waited, f"{self.text('he-status')!r} is all that came"
            time.sleep(0.05)
        return found

    def says(self, text):
        self.until(lambda: text in self.text("he-status"))

    def translate(self, source):
        self.fill("he-target", "")
        self.fill("he-source", source)
        self.click("he-translate")
        return self.until(lambda: self.value("he-target"))

    def edit(self, source, target):
        """What the model says then."""
        self.translate(source)
        self.fill("he-target", target)
        self.click("he-edit")
        self.says("as asked")
        return self.all("#he-outcome .he-pair > div")[1].text.partition("\n")[2]


@pytest.fixture
def browse(app, tmp_path):
    """Opens browsers on the page."""
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("no chromium and chromedriver")
    opened = []

    def browse():
        opened.append(Browser(app[0], tmp_path))
        return opened[-1]

    yield browse
    for browser in opened:
        browser.driver.quit()


def test_translate_edit_undo_keep_download_and_undo_the_last(browse, app, tmp_path):
    _, _, editor = app
    browser = browse()
    before = editor.translate([SOURCE])[0]
    assert browser.translate(SOURCE) == before and not browser.all("#he-outcome dl")
    edited = browser.edit(SOURCE, TARGET)
    assert edited != before and browser.all("#he-outcome ins")
    assert re.search(r"Steps\n\d+\nTime\n[\d.]+ m?s", browser.text("he-outcome"))
    assert re.search(r"[1-4] of 4\nBLEU\n[\d.]+ → [\d.]+", browser.text("he-impact"))
    assert len(browser.all("#he-impact .he-change")) == int(re.search(r"(\d) of 4", browser.text("he-impact"))[1])

    browser.click("he-undo")
    browser.says("Undone")
    assert browser.value("he-target") == before and "None yet" in browser.text("he-kept")
    assert browser.edit(SOURCE, TARGET) == edited
    browser.click("he-keep")
    browser.says("Kept")
    assert browser.translate(SOURCE) == edited and TARGET in browser.text("he-kept")

    browser.click("he-download")
    zipped = browser.until(lambda: list(tmp_path.glob("*.zip")))[0]
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path)
    with editor.model.edited(EditPatch.from_pretrained(tmp_path / "patch")):
        assert editor.translate([SOURCE]) == [edited]

    browser.click("he-undo-last")
    browser.says("Taken back")
    assert browser.translate(SOURCE) == before and "None yet" in browser.text("he-kept")
    errors = [entry["message"] for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def test_users_do_not_see_each_others_edits(browse, app):
    one, other = browse(), browse()
    before = other.translate(SOURCE)
    edited = one.edit(SOURCE, TARGET)
    one.click("he-keep")
    one.says("Kept")
    assert other.translate(SOURCE) == before != edited
    assert one.translate(SOURCE) == edited and "None yet" in other.text("he-kept")


def test_mistakes_are_told_on_the_page_and_hostile_text_stays_text(browse):
    browser = browse()
    title = browser.driver.title
    browser.click("he-translate")
    browser.says("The source is empty")
    browser.translate(HOSTILE)
    browser.fill("he-target", HOSTILE)
    browser.click("he-edit")
    browser.until(lambda: browser.all(".he-error"))
    assert "<img" in browser.text("he-status") and not browser.all("#he-status img")
    assert browser.driver.title == title
    browser.fill("he-source", "x" * 150)
    assert len(browser.value("he-source")) == 100
    browser.click("he-translate")  # and it goes on
    browser.until(lambda: not browser.all(".he-error"))


def test_a_phone_shows_it_without_scrolling_sideways(browse):
    browser = browse()
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.open()
    browser.edit(SOURCE, TARGET)
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    left, right = browser.all("#he-outcome .he-pair > div")
    assert left.location["x"] == right.location["x"] and left.location["y"] < right.location["y"]


def test_no_other_server_is_asked_for_anything(browse, app):
    browser = browse()
    browser.translate(SOURCE)
    messages = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    asked = {url for url in asked if not url.startswith(("data:", "blob:", "chrome", "about:"))}
    assert asked and all(url.startswith(app[0]) for url in asked)


def test_files_of_a_session_go_when_its_tab_is_closed(browse, app):
    _, workbench, _ = app
    browser = browse()
    kept = set(workbench.folder.rglob("store.json"))
    browser.edit(SOURCE, TARGET)
    browser.click("he-keep")
    browser.says("Kept")
    (place,) = set(workbench.folder.rglob("store.json")) - kept
    browser.driver.get("about:blank")
    browser.until(lambda: not place.parent.exists())


def fetch(url, **options):
    """Status of a request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_files_are_sent_from_the_downloads_only(app):
    address, workbench, _ = app
    _, session = workbench.open()
    session.propose(SOURCE, TARGET)
    session.keep()
    store = next(workbench.folder.rglob("store.json"))
    assert fetch(f"{address}/gradio_api/file={session.download}") == 200
    inside = workbench.downloads
    for path in (
        "/etc/passwd",
        __file__,
        "setup.cfg",
        store,
        f"{inside}/../sessions",
        f"{inside}/../../../../etc/passwd",
    ):
        assert fetch(f"{address}/gradio_api/file={path}") in (403, 404)
    assert fetch(f"{address}/gradio_api/file={inside}/..%2f{store.relative_to(workbench.folder)}") in (403, 404)
    assert fetch(f"{address}/gradio_api/file={inside}") == 403


def test_there_is_no_interface_beside_the_page(app):
    with urllib.request.urlopen(f"{app[0]}/gradio_api/info") as response:
        assert json.load(response) == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert app[0].startswith("http://127.0.0.1:")


def test_a_port_in_use_is_named(app):
    port = int(app[0].rpartition(":")[2])
    with pytest.raises(EditableValueError, match=f"Cannot listen at 127.0.0.1:{port}"):
        PageServer(Page(app[1]), port=port)


def test_other_addresses_are_warned_of(app, monkeypatch):
    said = []
    monkeypatch.setattr(logger, "warning", said.append)
    for host in ("127.0.0.1", "0.0.0.0"):
        PageServer(Page(app[1]), host, None).close()
    assert len(said) == 1 and "'0.0.0.0'" in said[0] and "no password" in said[0]


def test_the_command_serves_until_it_is_told_to_stop(make_tiny_model, tiny_tokenizer, tmp_path):
    model = make_tiny_model()
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(dir=tmp_path)
    command = [sys.executable, "-m", "hf_editable", "app", "--model_name_or_path", str(tmp_path / "model")]
    running = subprocess.Popen(
        [*command, "--port", str(port), "--store", str(tmp_path / "store")],
        env={**os.environ, "TMPDIR": folder},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert f"http://127.0.0.1:{port}" in running.stdout.readline()
        assert fetch(f"http://127.0.0.1:{port}") == 200
        assert list(Path(folder).glob("hf_editable-app-*")) and (tmp_path / "store" / "store.json").exists()
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
    assert not list(Path(folder).glob("hf_editable-app-*"))
