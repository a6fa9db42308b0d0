"""A way to PostgreSQL that can be frozen: lines stay open, bytes are taken, and nothing goes on."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url


class Way:
    """Passes bytes on between TCP clients and a server's socket, unless it is frozen."""

    def __init__(self, server_socket: Path) -> None:
        self._server_socket = server_socket
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._going_on = threading.Event()
        self._going_on.set()
        self._ended = False
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Pass nothing on any more; the system goes on taking connections and confirming bytes."""
        self._going_on.clear()

    def thaw(self) -> None:
        """Go on."""
        self._going_on.set()

    def end(self) -> None:
        """Close it."""
        self._ended = True
        self.thaw()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            self._going_on.wait()
            server.connect(str(self._server_socket))
            others = {client: server, server: client}
            while not self._ended:
                ready, _, _ = select.select([client, server], [], [], 0.2)
                for one in ready:
                    self._going_on.wait()
                    content = one.recv(65536)
                    if not content:
                        return
                    others[one].sendall(content)


@contextmanager
def frozen_way(folder: Path, url: str) -> Iterator[tuple[Way, str]]:
    """A way to a database in a folder's socket, and the database's URL by that way."""
    way = Way(folder / ".s.PGSQL.5432")
    try:
        # No less than 2 s is taken by libpq.
        parts = make_url(url).set(host="127.0.0.1", port=way.port, query={"connect_timeout": "2"})
        yield way, parts.render_as_string(hide_password=False)
    finally:
        way.end()
