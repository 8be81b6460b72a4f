"""Texts without secrets."""

import logging
import time

import pytest

from litlab.runs import redact as redact_module
from litlab.runs.redact import (
    RedactingFormatter,
    is_secret,
    mask_addresses,
    mask_command,
    mask_diff,
    mask_source,
    redact,
    redact_all,
    register_secrets,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://u:p@h/x", "https://***@h/x"),
        ("https://u:p@q@h", "https://***@h"),
        ("a=s3://u:p@x b=http://v:p@y?c=d@e", "a=s3://***@x b=http://***@y?c=d@e"),
        ("s3://key@bucket and http://h/?a=1", "s3://***@bucket and http://h/?a=1"),
        ("https://h/x?v=1&X-Amz-Signature=abc&token=d#top", "https://h/x?v=1&X-Amz-Signature=***&token=***#top"),
        ("https://h/x?sort=key&keyword=b", "https://h/x?sort=key&keyword=b"),
        ("git@host:x me@example.org a://b/c@d", "git@host:x me@example.org a://b/c@d"),
    ],
)
def test_urls(text: str, expected: str) -> None:
    assert mask_addresses(text) == expected


def test_commands() -> None:
    words = ["litlab", "train", "lr=0.1", "hydra.job.env_set.MY_TOKEN=abc", "+a={token: abc, password: 'x y', n: 1}"]
    assert mask_command(words)[3:] == ["hydra.job.env_set.MY_TOKEN=***", "+a={token: ***, password: '***', n: 1}"]
    same = ["tokenizer=bert", "+a.token=${oc.env:X}", "+a={token: '${oc.env:X}'}", "-m", "a=b=c"]
    assert mask_command(same) == same


def test_sources() -> None:
    config = 'password: hunter2\napi_key: ${oc.env:KEY}\ntoken: null\nauth: true\nnum_tokens: 5\nweb-api-key = "x"\n'
    masked = 'password: ***\napi_key: ${oc.env:KEY}\ntoken: null\nauth: true\nnum_tokens: 5\nweb-api-key = "***"\n'
    assert mask_source(config, ".yaml") == masked
    code = "def f(token: str, password=None) -> None:\n    secret = make(token)\n    TOKEN: str = 'abc'\n"
    assert mask_source(code, ".py") == code.replace("abc", "***")


def test_diffs_by_file() -> None:
    diff = "--- a/x.yaml\n+++ b/x.yaml\n+token: abc\n--- a/x.py\n+++ b/x.py\n+token: str\n"
    assert mask_diff(diff) == diff.replace("abc", "***")


def test_long_lines_are_masked_quickly() -> None:
    start = time.perf_counter()
    for text in ("a" * 10**6, "a='b=\"" * 10**5, "x://a" * 10**5, "token=" * 10**5, "?a&" * 10**5, "a-b.c " * 10**5):
        mask_source(text, ".yaml")
    assert time.perf_counter() - start < 10


def test_registered_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact_module, "_registered", set())
    register_secrets(["hunter2", "hunter2-long", "abc", "https://me:geheim@h/x?sig=4711abc"])
    assert redact("hunter2-long, hunter2; geheim 4711abc") == "***, ***; *** ***"
    assert redact("abc") == "abc", "too short to be told from other text"
    assert redact_all({"a": ["hunter2", 1, None], "b": ("x",)}) == {"a": ["***", 1, None], "b": ("x",)}
    record = logging.LogRecord("a", logging.INFO, "f", 1, "got %s", ("hunter2",), None)
    assert RedactingFormatter("%(name)s %(message)s").format(record) == "a got ***"


SECRET_KEYS = """
    api_key apikey token hf_token PASSWORD private_key secret credentials accessToken authorization auth passphrase
    webApiKey
"""


def test_keys_that_look_like_a_secret() -> None:
    assert [key for key in SECRET_KEYS.split() if not is_secret(key)] == []
    others = ("tokens_per_batch", "num_tokens", "tokenizer", "key", "keys", "lr", "author", "passes")
    assert [key for key in others if is_secret(key)] == []
