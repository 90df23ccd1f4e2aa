"""The web page, under a strict content security policy."""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

_PACKAGE = Path(__file__).resolve().parent.parent
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_EXCLUDED = frozenset({"node_modules", "test", "tests"})


def web_folder() -> Path | None:
    """Return the page's folder: inside an installed package, beside it in a checkout."""
    for folder in (_PACKAGE / "web", _PACKAGE.parent / "web"):
        if (folder / "index.html").is_file():
            return folder
    return None


class Page:
    """Serves the page's files, and 404 for everything if there are none."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or web_folder()
        # compressed: the page is to load fast on a phone; it is public, so there is no secret to leak by size
        self._files = GZipMiddleware(StaticFiles(directory=folder, html=True)) if folder else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._files is None or _EXCLUDED & set(scope["path"].split("/")):
            raise HTTPException(404)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._files(scope, receive, send_with_headers)
