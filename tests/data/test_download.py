"""Servers that send too much, and addresses with a password."""

import base64
from pathlib import Path
from typing import Any

import pytest

from litlab.data.download import Checksum, download
from litlab.errors import UserError


def test_no_more_is_read_than_expected(server: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not x.tar: it has more than 300,000 bytes\. It was deleted"):
        download(f"http://{server.host}/endless", tmp_path / "x.tar", Checksum("x.tar", 300_000, "0" * 64))
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_sent_to_its_host_only(server: Any, tmp_path: Path, capfd: Any) -> None:
    url = f"http://me:hunt%40er2@{server.host}/redirect"
    with pytest.raises(UserError) as refused:
        download(url, tmp_path / "x.tar", Checksum("x.tar", 9, "0" * 64))
    expected = "Basic " + base64.b64encode(b"me:hunt@er2").decode()
    assert server.requests == [("/redirect", expected), ("/endless", None)]
    assert f"http://***@{server.host}/redirect" in str(refused.value)
    assert "er2" not in str(refused.value) + "".join(capfd.readouterr())
