"""Who may speak to `djsb tui --serve`: who has the URL's token, by a host name of this machine, from our own page."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

# a redirect would be part of the navigation that brought the token: begun on another site (a web mail, a notebook), it
# would not carry a SameSite=Strict cookie; a page of our own that goes on does
ENTER = '<!DOCTYPE html><meta http-equiv="refresh" content="0;url=/"><a href="/">djsb</a>\n'


@dataclass(frozen=True)
class Guard:
    """host, port: where the server listens. token: what every request must carry, once by query, then by cookie."""

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @classmethod
    def at(cls, listening: socket.socket) -> Guard:
        """The guard of a socket."""
        host, port = listening.getsockname()[:2]
        return cls(host, port)

    @property
    def url(self) -> str:
        """What a person opens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """A browser sends a host's cookies to all its ports, so each server's has its own name."""
        return f"djsb-{self.port}"

    def knows(self, host: str) -> bool:
        """False for the name of another site that resolves to this machine. host: of a Host header."""
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.netloc != host or "@" in host:
            return False
        if name in ("localhost", self.host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not self._local and name == socket.gethostname().lower()
        return address.is_loopback or not self._local

    @property
    def _local(self) -> bool:
        return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    def refusal(self, request: web.Request) -> web.Response | None:
        """Why a request is not answered, or None."""
        if not self.knows(request.headers.get("Host", "")):
            return web.Response(status=403, text="this is not the name of the machine that serves djsb\n")
        origin = request.headers.get("Origin")
        upgrades = "upgrade" in request.headers.get("Connection", "").lower() or request.path == "/ws"
        if (origin is not None or upgrades) and urlsplit(origin or "").netloc != request.headers["Host"]:
            return web.Response(status=403, text="another site's page may not speak to djsb\n")
        given = request.query.get("token", request.cookies.get(self.cookie, ""))
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return web.Response(status=401, text="open the URL that djsb tui --serve has printed: it has a token\n")
        return None

    @property
    def middleware(self) -> Middleware:
        """The guard as aiohttp's middleware."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            response: web.StreamResponse
            if refused := self.refusal(request):
                response = refused
            elif "token" in request.query and request.path == "/":
                response = web.Response(text=ENTER, content_type="text/html")
                response.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict", path="/")
            else:
                try:
                    response = await handler(request)
                except web.HTTPException as error:
                    response = web.Response(status=error.status, text=error.text)
            if not response.prepared:
                for name, value in HEADERS.items():
                    response.headers[name] = value.replace("{host}", request.headers.get("Host", ""))
            return response

        return guarded
