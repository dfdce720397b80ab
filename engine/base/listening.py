"""Sockets that djsb listens at."""

from __future__ import annotations

import socket

from engine.base.errors import DjsbError


class ListenError(DjsbError):
    """An address that cannot be listened at."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0: any that is free. Raises: ListenError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ListenError(f"--host {host}: no such address ({error})") from error
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(16)
    except OSError as error:
        found.close()
        raise ListenError(f"{host} port {port}: {error.strerror}; another --port? 0 takes any that is free") from error
    return found
