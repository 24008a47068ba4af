"""The server of the page: open for nothing that the page does not need, and for nobody but who opened it."""

import logging
import socket
import threading
from collections.abc import Sequence
from typing import Any

from transformers.utils.logging import get_logger

from ..errors import EditableImportError, EditableValueError
from .page import Page
from .style import CSS


try:
    import gradio as gr
    import uvicorn
    from starlette.applications import Starlette

    from .guard import LOOPBACK, Guard, bracketed
except ImportError as error:
    raise EditableImportError("The page needs Gradio: pip install 'hf_editable[app]'.") from error


logger = get_logger(__name__)

FIRST_PORT, PORTS = 7860, 100
SECONDS_TO_STOP = 5


class PageServer:
    """
    Serves a page, in a thread, from when it is made until it is closed. It sends no file but what is in the folder of
    downloads, takes no upload, asks no other server for anything, and answers only what was opened under a
    name of its own ([`Guard`]).

    Args:
        page ([`Page`]): the page.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen at. Any other than this machine's own lets others use the model.
        port (`int`, *optional*, defaults to 7860): its port; `None` takes the first free one from 7860 on.
        allowed_hosts (`Sequence[str]`, *optional*):
            Further names under which browsers open it, such as a proxy's, with their ports.

    Attributes:
        address (`str`): where a browser finds the page.
        port (`int`): the port that it listens at.

    Raises:
        EditableValueError: if it cannot listen there.
    """

    def __init__(
        self, page: Page, host: str = LOOPBACK[1], port: int | None = FIRST_PORT, allowed_hosts: Sequence[str] = ()
    ):
        if bracketed(host) not in LOOPBACK:
            logger.warning(f"Whoever can reach {host!r} over the network can use this page; it asks for no password.")
        listening = _listen(host.strip("[]"), [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS))
        self.port: int = listening.getsockname()[1]
        self.address = f"http://{bracketed(host)}:{self.port}"
        # Not `launch`: it asks its own server whether it is there, by the proxy of the environment, and gives up after
        # three seconds; and what guards the server would stand behind what answers preflights.
        app = Guard(gr.mount_gradio_app(Starlette(), page.blocks, "/", **_closed()), host, allowed_hosts)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", proxy_headers=False))
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when the server has ended."""
        self._thread.join()

    def close(self) -> None:
        """End the server; streams that pages have open end with it."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off now is no error
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(SECONDS_TO_STOP)


def _listen(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket at the first of the ports that is free."""
    for port in ports:
        try:
            family, *_, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
            return socket.create_server((address[0], port), family=family)
        except (OSError, OverflowError) as error:
            reason = error
    raise EditableValueError(f"Cannot listen at {host}:{ports[0]}: {reason} Choose another host or port.") from reason


def _closed() -> dict[str, Any]:
    """Arguments by which nothing is open that the page does not need."""
    return {
        "allowed_paths": [],
        "max_file_size": 0,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "css": CSS,
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    }
