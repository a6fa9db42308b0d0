"""A system that is called back: a real HTTP server that answers as a test wants."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast


@dataclass
class Receiver:
    """What it answers, one after the other and the last one for ever: a status, `hang`, `drip`, `endless` or `cut`."""

    answers: list[int | str]
    location: str = "/elsewhere"
    pause_s: float = 0.0
    """How long it thinks before it answers."""
    thinking: int = 0
    """Requests that have no answer yet."""
    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """What TLS clients called it."""
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?case=7"

    def next_answer(self) -> int | str:
        with self.lock:
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Server(ThreadingHTTPServer):
    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = receiver

    def handle_error(self, *_: Any) -> None:
        pass  # clients that hang up are what is tested


class _Handler(BaseHTTPRequestHandler):
    @property
    def receiver(self) -> Receiver:
        return cast(_Server, self.server).receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.receiver.lock:
            self.receiver.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
            self.receiver.thinking += 1
        time.sleep(self.receiver.pause_s)
        with self.receiver.lock:
            self.receiver.thinking -= 1
        self.answer(self.receiver.next_answer())

    def do_GET(self) -> None:
        self.receiver.requests.append((self.path, {}, b""))
        self.answer(200)

    def answer(self, kind: int | str) -> None:
        if isinstance(kind, int):
            self.send_response(kind)
            if 300 <= kind < 400:
                self.send_header("Location", self.receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "cut":
            self.close_connection = True
        else:
            self.stay_on_the_line(kind)

    def stay_on_the_line(self, kind: str) -> None:
        try:
            if kind == "endless":
                self.send_response(200)
                self.end_headers()
            elif kind == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.receiver.over.wait(0.05):
                if kind != "hang":
                    self.wfile.write(b"x")
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving(*answers: int | str, certificate: Path | None = None) -> Iterator[Receiver]:
    receiver = Receiver(list(answers))
    server = _Server(receiver)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
