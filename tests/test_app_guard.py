"""Whom the server of the page answers: real requests, with names and origins of the page's own and of others."""

import http.client
import json
import re
import socket

import pytest

from hf_editable import EditableValueError, TranslationEditor
from hf_editable.app.page import Page
from hf_editable.app.server import PageServer
from hf_editable.app.sessions import Sessions


JOIN = {"data": [None, "der hund sieht den ball .", "the dog ."], "fn_index": 0, "session_hash": "a"}


@pytest.fixture(scope="module")
def sessions(make_tiny_model, tiny_tokenizer, tmp_path_factory):
    editor = TranslationEditor(make_tiny_model(), tiny_tokenizer, num_beams=2)
    return Sessions(editor, tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def page(sessions):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            patch.setenv(name, "")  # which the page sets: put back in the end
        yield Page(sessions)


@pytest.fixture(scope="module")
def server(page):
    server = PageServer(page, port=None)
    yield server
    server.close()


def ask(server, method, path, headers=(), body=None):
    """Status and text of the answer to a request, whose `Host` and `Origin` are what `headers` say."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    # What an open stream of events has to say is not waited for.
    text = response.read().decode() if response.status != 200 else ""
    connection.close()
    return response.status, text


@pytest.mark.parametrize("content", [b"evil", b""], ids=["some bytes", "no byte"])
@pytest.mark.parametrize("path", ["upload", "process_recording", "component_server"])
def test_nothing_can_be_uploaded(server, sessions, path, content):
    before = set(sessions.folder.rglob("*"))
    name = "form-data; name=files; filename=../../evil.txt"
    body = b"--b\r\nContent-Disposition: %s\r\n\r\n%s\r\n--b--\r\n" % (name.encode(), content)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = ask(server, "POST", f"/gradio_api/{path}", headers, body)
    assert answer == (413, "This page takes no files.\n")
    assert {path for path in sessions.folder.rglob("*") if path.is_file()} <= before
    assert not list(sessions.folder.parent.rglob("evil*"))


def paths(routes):
    """The paths of routes, also of those that were included as one."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from paths(route.original_router.routes)
        else:
            yield route.path


def test_no_route_answers_under_a_name_that_another_site_made_point_here(page, server):
    known = sorted(set(paths(page.blocks.app.routes)))
    assert {"/", "/config"} < set(known) and {"queue/join", "queue/data", "upload"} <= {
        path.removeprefix("/gradio_api/") for path in known
    }
    for path in known:
        for method in ("GET", "POST", "OPTIONS"):
            name = f"evil.example:{server.port}"
            status, text = ask(server, method, re.sub("{.*?}", "x", path), {"Host": name, "Origin": f"http://{name}"})
            assert status == 403 and f"'{name}'" in text, (method, path)


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:{port}", None, 200),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 200),
        ("LocalHost:{port}", "http://localhost:{port}", 200),
        ("[::1]:{port}", "http://[::1]:{port}", 200),
        ("evil.example:{port}", "http://evil.example:{port}", 403),
        ("evil.example", "http://127.0.0.1:{port}", 403),
        ("127.0.0.1:1", None, 403),
        ("127.0.0.1", None, 403),
        ("", None, 403),
        ("127.0.0.1:{port}", "http://evil.example", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:1", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example", 403),
        ("127.0.0.1:{port}", "null", 403),
    ],
)
def test_who_may_send_to_the_queue(server, host, origin, status):
    port = server.port
    headers = {"Content-Type": "application/json", "Host": host.format(port=port)}
    headers |= {} if origin is None else {"Origin": origin.format(port=port)}
    answered, text = ask(server, "POST", "/gradio_api/queue/join", headers, json.dumps(JOIN))
    assert answered == status and ("--allowed_hosts" in text) == (status == 403)


def test_further_names_and_addresses_are_those_that_are_given(page):
    server = PageServer(page, "0.0.0.0", None, ["Proxy.example", "box:8080"])
    try:
        for name in ("proxy.example", "box:8080", f"{socket.gethostname()}:{server.port}", f"127.0.0.1:{server.port}"):
            assert ask(server, "GET", "/config", {"Host": name, "Origin": f"https://{name}"})[0] == 200
        for name in ("proxy.example:8080", "box", "192.0.2.1", f"192.0.2.1:{server.port}", f"0.0.0.0:{server.port}"):
            assert ask(server, "GET", "/config", {"Host": name})[0] == 403
    finally:
        server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET", "/")


def test_it_asks_nobody_whether_it_is_there(page, monkeypatch):
    """A proxy of the environment, which knows nothing of this machine's own addresses, is not asked for them."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = PageServer(page, port=None)
    assert ask(server, "GET", "/config")[0] == 200
    server.close()


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_ports_that_there_are_not(page, port):
    with pytest.raises(EditableValueError, match=f"Cannot listen at 127.0.0.1:{port}: .* Choose another"):
        PageServer(page, port=port)
