"""Who may speak to the page: what was opened under one of its own names, and nobody who brings a file."""

import socket
from collections.abc import Iterable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
WILDCARDS = ("0.0.0.0", "[::]")


def bracketed(host: str) -> str:
    """A host as addresses of pages have it: an IPv6 address is in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


class Guard:
    """
    Answers, in place of an app, what a page of another site sends through a visitor's browser. A name that such
    a site has made point at this machine (DNS rebinding) stands in `Host`, and the site's own in `Origin`; both have
    to be names of the page. What brings files is refused before they are read: the page has no use for any.

    Args:
        app (`ASGIApp`): the app.
        host (`str`):
            Address that the server listens at. One that stands for all of this machine's (`0.0.0.0`, `::`) brings its
            host name and the address that a client connected to.
        allowed_hosts (`Iterable[str]`, *optional*):
            Further names as browsers send them, such as a proxy's: with the port, unless it is the usual one.
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Iterable[str] = ()):
        self._app = app
        self._any_address = bracketed(host) in WILDCARDS
        self._names = {*LOOPBACK, socket.gethostname().lower() if self._any_address else bracketed(host).lower()}
        self._allowed = frozenset(name.lower() for name in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            text, status = refused
            await PlainTextResponse(f"{text}\n", status, {"X-Content-Type-Options": "nosniff"})(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[str, int] | None:
        """What to answer instead of the app, and the status; `None` for what the app may see."""
        headers = {name.decode("latin-1").lower(): text.decode("latin-1").lower() for name, text in scope["headers"]}
        hosts = self._hosts(scope)
        host = headers.get("host", "")
        if host not in hosts:
            return f"This page is not opened under the name {host!r}. Allow names with --allowed_hosts.", 403
        origin = headers.get("origin")
        if origin is not None and origin not in {
            f"{scheme}://{name}" for scheme in ("http", "https") for name in hosts
        }:
            return f"This page takes no requests from {origin!r}. Allow names with --allowed_hosts.", 403
        if headers.get("content-type", "").lstrip().startswith("multipart/"):
            return "This page takes no files.", 413
        return None

    def _hosts(self, scope: Scope) -> set[str]:
        """All that may stand in `Host`, by the end of the connection that is here."""
        address, port = scope["server"]
        names = self._names | ({bracketed(address)} if self._any_address else set())
        usual = names if port in (80, 443) else set()
        return {f"{name}:{port}" for name in names} | usual | self._allowed
