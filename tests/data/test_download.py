"""Servers that send too much, and addresses with a password."""

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litlab.data.download import Checksum, download
from litlab.errors import UserError


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends zeros until the other side hangs up; at /elsewhere, the way there."""

    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/endless")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(10**4):  # 10 GB
                self.wfile.write(bytes(10**6))
        except OSError:
            return

    def log_message(self, *arguments: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    handler = type("Handler", (Endless,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{serving.server_port}", handler.seen
        serving.shutdown()
        thread.join()


def test_no_more_is_taken_than_expected(server: Any, tmp_path: Path) -> None:
    host, _ = server
    with pytest.raises(UserError, match=r"is not x.tar: it has more than 300,000 bytes\. It was deleted"):
        download(f"http://{host}/endless", tmp_path / "x.tar", Checksum("x.tar", 300_000, "0" * 64))
    assert list(tmp_path.iterdir()) == []


def test_a_password_goes_to_its_host_and_nowhere_else(server: Any, tmp_path: Path, capfd: Any) -> None:
    host, seen = server
    with pytest.raises(UserError) as refused:
        download(f"http://me:hunt%40er2@{host}/elsewhere", tmp_path / "x.tar", Checksum("x.tar", 9, "0" * 64))
    expected = "Basic " + base64.b64encode(b"me:hunt@er2").decode()
    assert seen == [("/elsewhere", expected), ("/endless", None)]
    assert f"http://***@{host}/elsewhere" in str(refused.value)
    assert "er2" not in str(refused.value) + "".join(capfd.readouterr())
