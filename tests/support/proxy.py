"""A TCP proxy between the store and its database that breaks the connection in each way a network or a server can."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from itertools import cycle
from typing import Self

LATENCY = 0.3  # seconds
_RST = struct.pack("ii", 1, 0)  # SO_LINGER: close without a farewell
QUIET = 0.05  # seconds without another byte, after which an answer is taken to be complete


class Fault(Enum):
    """What the proxy does to everybody until it is healed; the cuts happen once."""

    NONE = auto()
    REFUSE = auto()
    """Nobody listens, and the connections that were open are reset."""
    RESET = auto()
    """Whoever says something is reset."""
    BLACKHOLE = auto()
    """Everything is taken, and even acknowledged by TCP, but nothing answers."""
    LATENCY = auto()
    """Each message of a client arrives late."""
    SLICES = auto()
    """Answers come byte by byte."""
    CUT_BEFORE = auto()
    """The connection breaks before the message that holds the marker has reached the server."""
    CUT_AFTER = auto()
    """The connection breaks once the server has done what the message asked, before its answer."""
    CUT_INSIDE = auto()
    """The connection breaks in the middle of the answer."""


CUTS = (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.CUT_INSIDE)


class Proxy:
    """Listens on a port of its own and connects to `servers` in turn; `arm()` breaks it, `heal()` mends it."""

    def __init__(self, *servers: tuple[str, int]) -> None:
        self._servers = cycle(servers)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._fault = Fault.NONE
        self._marker = b""
        self.faults = 0
        """How often a fault was met."""
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()
        self.drop_all()

    def arm(self, fault: Fault, marker: bytes = b"") -> None:
        """Begin a fault. A cut waits for the first message that holds `marker`."""
        with self._lock:
            self._fault, self._marker = fault, marker
        if fault is Fault.REFUSE:
            self._stop_listening()
            self.drop_all()

    def heal(self) -> None:
        """End the fault; connections that it left hanging are reset."""
        with self._lock:
            was, self._fault = self._fault, Fault.NONE
        if was is Fault.BLACKHOLE:
            self.drop_all()
        if self._listener is None:
            self._listen()

    @contextmanager
    def armed(self, fault: Fault, marker: bytes = b"") -> Iterator[None]:
        """Begin a fault, and end it behind the block."""
        self.arm(fault, marker)
        try:
            yield
        finally:
            self.heal()

    def lead_to(self, server: tuple[str, int]) -> None:
        """Connect to another server from now on; what is open stays with the one before."""
        self._servers = cycle([server])

    def drop_all(self) -> None:
        """Reset every connection."""
        with self._lock:
            sockets, self._open = self._open, set()
        for one in sockets:
            _reset(one)

    def _listen(self) -> None:
        # The port stays the same for the proxy's whole life.
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # close() alone would not wake accept()
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(next(self._servers))
            except OSError:
                _reset(client)
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            link = _Link(self, client, server)
            threading.Thread(target=link.carry_questions, daemon=True).start()
            threading.Thread(target=link.carry_answers, daemon=True).start()

    def fault_for(self, message: bytes) -> Fault:
        """Return what is to happen to a client's message; a cut is used up by it."""
        with self._lock:
            fault = self._fault
            if fault in CUTS:
                if self._marker not in message:
                    return Fault.NONE
                self._fault = Fault.NONE
            if fault is not Fault.NONE:
                self.faults += 1
            return fault

    @property
    def fault(self) -> Fault:
        return self._fault

    def forget(self, *sockets: socket.socket) -> None:
        """Reset the two ends of a connection."""
        with self._lock:
            self._open -= set(sockets)
        for one in sockets:
            _reset(one)


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._cut: Fault | None = None

    def carry_questions(self) -> None:
        with suppress(OSError):
            while message := self._client.recv(1 << 20):
                fault = self._proxy.fault_for(message)
                if fault in (Fault.RESET, Fault.CUT_BEFORE):
                    break
                if fault is Fault.BLACKHOLE:
                    continue
                if fault is Fault.LATENCY:
                    time.sleep(LATENCY)
                if fault in (Fault.CUT_AFTER, Fault.CUT_INSIDE):
                    self._cut = fault
                self._server.sendall(message)
        self._end()

    def carry_answers(self) -> None:
        with suppress(OSError):
            while answer := self._server.recv(1 << 20):
                if self._cut is not None:
                    answer = self._whole(answer)
                    if self._cut is Fault.CUT_INSIDE:
                        self._client.sendall(answer[: len(answer) // 2])
                        # What is in the buffers when a connection is reset may be lost: let it arrive.
                        self._client.shutdown(socket.SHUT_WR)
                    break
                if self._proxy.fault is Fault.BLACKHOLE:
                    continue
                if self._proxy.fault is Fault.SLICES:
                    for byte in answer:
                        self._client.send(bytes([byte]))
                else:
                    self._client.sendall(answer)
        self._end()

    def _whole(self, answer: bytes) -> bytes:
        """Return the answer to its end."""
        self._server.settimeout(QUIET)
        with suppress(TimeoutError):
            while more := self._server.recv(1 << 20):
                answer += more
        return answer

    def _end(self) -> None:
        self._proxy.forget(self._client, self._server)


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
    with suppress(OSError):
        one.close()
