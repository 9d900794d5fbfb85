"""The client's cluster, the token and the TLS files: what a request shows, and what of a node is checked."""

import base64
import binascii
import logging
import os
import ssl
import threading
import time
from typing import NamedTuple, Optional, Tuple
from urllib.parse import quote, unquote

from .errors import WrongClusterError, invalid

#: How long the content of a file is used before it is looked at again.
FILE_AGE = 1.0
MAX_TOKEN_FILE = 4 << 10


class ClusterRef(NamedTuple):
    """A cluster's name and id; an unknown part is empty."""

    name: str = ""
    id: str = ""

    @classmethod
    def parse(cls, text: str) -> "ClusterRef":
        name, _, id = text.partition("/")
        if max(len(name.encode()), len(id.encode())) > 255 or "/" in id:
            raise invalid("client", "cluster", "NAME, NAME/ID or /ID, at most 255 bytes each", f"cluster {text[:600]!r}")
        return cls(name, id)

    def __str__(self) -> str:
        return f"{self.name}/{self.id}" if self.id else self.name

    def encode(self) -> str:
        """The header's value: each part is percent-encoded."""
        return str(ClusterRef(quote(self.name, safe=""), quote(self.id, safe="")))


class Identity:
    """The given cluster, completed by the first answer and kept from then on, so that a reused address never
    leads to another cluster."""

    def __init__(self, cluster: str) -> None:
        self._lock = threading.Lock()
        self._own = ClusterRef.parse(cluster)
        self.header = self._own.encode()

    def check(self, node: ClusterRef, adopt: bool) -> None:
        """Compares the cluster that a node names, and with adopt completes the identity by it."""
        with self._lock:
            own = self._own
            if any(a and b and a != b for a, b in zip(own, node)):
                hint = "; if the cluster was formed anew, make a new client" if own.id else ""
                raise WrongClusterError(f"the node is of cluster {str(node)!r}, this client of {str(own)!r}{hint}")
            if adopt and not (own.name and own.id):
                self._own = ClusterRef(own.name or node.name, own.id or node.id)
                self.header = self._own.encode()

    def check_header(self, value: Optional[str], adopt: bool) -> None:
        """Checks the header Registry-Cluster of an answer; a node of an early version names no cluster."""
        if value and (value != self.header or "" in self._own):
            name, _, id = value.partition("/")
            self.check(ClusterRef(unquote(name), unquote(id)), adopt)


class Credential:
    """The client's token. It is in no error and in no line of the log."""

    def __init__(self, token: str, file: str, log: logging.Logger) -> None:
        self._file, self._log = file, log
        self._lock = threading.Lock()
        self._due = 0.0
        self._last = ""
        #: The value of the header Authorization; None: no token.
        self.header: Optional[str] = None
        if file:
            try:
                token = self._last = self._read()
            except (OSError, ValueError) as e:
                raise invalid("client", "token_file", "a readable file", str(e)) from None
            self._due = time.monotonic() + FILE_AGE
        if token or file:
            if not is_token(token):
                raise invalid("client", "token_file" if file else "token", _TOKEN, "the text is not a token")
            self.header = "Bearer " + token

    def _read(self) -> str:
        if is_token(self._file):
            raise ValueError("a token itself")  # which is not to be shown
        with open(self._file, encoding="ascii", errors="replace") as f:
            text = f.read(MAX_TOKEN_FILE + 1)
        if len(text) > MAX_TOKEN_FILE:
            raise ValueError(f"{self._file}: larger than {MAX_TOKEN_FILE} bytes")
        return text.strip()

    def refresh(self) -> Optional[str]:
        """Returns the header, of the file as it is now; a file that cannot be used is logged once."""
        if self._file and time.monotonic() >= self._due:
            with self._lock:
                if time.monotonic() >= self._due:
                    self._due = time.monotonic() + FILE_AGE
                    self._reload()
        return self.header

    def _reload(self) -> None:
        problem = ""
        try:
            read = self._read()
        except (OSError, ValueError) as e:
            read = problem = str(e)
        if read == self._last:
            return
        self._last = read
        if not problem and not is_token(read):
            problem = "the text is not a token"
        if problem:
            self._log.error("token file cannot be used, the token before stays in use: %s: %s", self._file, problem)
            return
        self.header = "Bearer " + read
        self._log.info("token file was read again: %s", self._file)

    def refused(self) -> None:
        """Makes the next call read the file: its token may have been replaced."""
        self._due = 0.0


_TOKEN = 'rgt_ and 54 characters of base64url'


def is_token(text: str) -> bool:
    """Reports whether a text has the form of a token."""
    if not text.startswith("rgt_") or len(text) != 58:
        return False
    try:
        return len(base64.b64decode(text[4:] + "==", altchars=b"-_", validate=True)) == 40
    except (binascii.Error, ValueError):
        return False


class TLSFiles:
    """PEM files of authorities, and of this client's certificate and key, which are followed."""

    def __init__(self, ca: str, cert: str, key: str, log: logging.Logger) -> None:
        if bool(cert) != bool(key):
            raise invalid("client", "cert", "PEM files, a certificate and its key together", "one of cert and key is missing")
        self._ca, self._chain, self._log = ca, (cert, key), log
        self._lock = threading.Lock()
        self._due = time.monotonic() + FILE_AGE
        try:
            self._seen = self._state()
            self._context = self._load()
        except (OSError, ssl.SSLError) as e:
            raise invalid("client", "ca", "readable PEM files", f"the TLS files cannot be used: {e}") from None

    def _state(self) -> Tuple[Tuple[str, int, int], ...]:
        stats = [(f, os.stat(f)) for f in (self._ca, *self._chain) if f]
        return tuple((f, s.st_mtime_ns, s.st_size) for f, s in stats)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca or None)
        if self._chain[0]:
            context.load_cert_chain(*self._chain)
        return prepare(context)

    def context(self) -> ssl.SSLContext:
        """Returns the context of the next connection; unusable new files leave the one before in use."""
        with self._lock:
            if time.monotonic() < self._due:
                return self._context
            self._due = time.monotonic() + FILE_AGE
            try:
                state = self._state()
                if state != self._seen:
                    self._seen = state
                    self._context = self._load()
                    self._log.info("TLS files were read again")
            except (OSError, ssl.SSLError) as e:
                self._log.error("TLS files cannot be used, those before stay in use: %s", e)
            return self._context


def prepare(context: ssl.SSLContext) -> ssl.SSLContext:
    """Chooses HTTP/1.1: HTTP/2 on the client port is gRPC."""
    context.set_alpn_protocols(["http/1.1"])
    return context
