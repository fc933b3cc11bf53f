"""Fields of a multipart form: read as every client sends them, refused where parsers would differ."""

from __future__ import annotations

import re

import aiohttp
import httpx
import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.passthrough.forms import MAX_PARTS, boundary_of, field_text, find_fields

WANTED = ("model", "n")
TYPE = "multipart/form-data; boundary=b0"
FILE = b'RIFF\r\n\r\n--\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\x00\xff'


def part(value: bytes, name: str = "model", more: str = "", headers: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}\r\n{headers}'
    return b"--b0\r\n" + head.encode() + b"\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0--\r\n"


def found(body: bytes, content_type: str = TYPE) -> dict[str, str]:
    at = find_fields(content_type, body, WANTED)
    return {name: field_text(name, body, span) for name, span in at.items()}


def refused(body: bytes, content_type: str = TYPE) -> str:
    with pytest.raises(ProxyError) as caught:
        found(body, content_type)
    assert (caught.value.kind, caught.value.retryable) == (Kind.INVALID_REQUEST, False)
    return caught.value.message


def test_a_form_as_httpx_and_so_the_openai_client_sends_it() -> None:
    data = {"model": "whisper-1", "n": "2", "include[]": ["logprobs", "x"]}
    files = {"file": ('sp"eech ä.wav', FILE, "audio/wav"), "image[]": ("a.png", b"", "image/png")}
    sent = httpx.Request("POST", "http://x/", data=data, files=files)
    assert found(sent.read(), sent.headers["content-type"]) == {"model": "whisper-1", "n": "2"}


async def test_a_form_as_aiohttp_sends_it() -> None:
    data = aiohttp.FormData()
    data.add_field("file", FILE, filename="speech.wav", content_type="audio/wav")
    data.add_field("model", "whisper-1")
    payload = data()
    assert isinstance(payload, aiohttp.MultipartWriter)
    body = await payload.as_bytes()
    assert found(body, payload.headers["content-type"]) == {"model": "whisper-1"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        # Chrome, Node's undici
        (
            b"------WebKitFormBoundaryp7MA4YWxkTrZu0gW\r\n"
            b'Content-Disposition: form-data; name="model"\r\n\r\ngpt-image-1\r\n'
            b"------WebKitFormBoundaryp7MA4YWxkTrZu0gW\r\n"
            b'Content-Disposition: form-data; name="image"; filename="a b.png"\r\n'
            b"Content-Type: image/png\r\n\r\n"
            b"\x89PNG\r\n\x1a\n\r\n------WebKitFormBoundaryp7MA4YWxkTrZu0gW--\r\n",
            "multipart/form-data; boundary=----WebKitFormBoundaryp7MA4YWxkTrZu0gW",
        ),
        # Java
        (
            b"--=_x/y:z\r\nContent-Disposition: form-data; name=model\r\n"
            b"Content-Type: text/plain; charset=UTF-8\r\n"
            b"Content-Transfer-Encoding: 8bit\r\n\r\ngpt-image-1\r\n--=_x/y:z--",
            'Multipart/Form-Data; charset=utf-8; boundary="=_x/y:z"',
        ),
    ],
)
def test_forms_of_other_clients(body: bytes, content_type: str) -> None:
    assert found(body, content_type) == {"model": "gpt-image-1"}


def test_only_the_wanted_are_read_and_their_places_known() -> None:
    body = form(
        part(FILE, "file", '; filename="x"'), part(b"", "n"), part(b"m", "model"), part(b"z" * 9_999, "o")
    )
    at = find_fields(TYPE, body, WANTED)
    assert {name: body[a:b] for name, (a, b) in at.items()} == {"n": b"", "model": b"m"}
    assert find_fields(TYPE, b"--b0--", WANTED) == {}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "does not begin"),
        (b'{"model":"m"}', "does not begin"),
        (b"preamble\r\n" + form(part(b"m")), "does not begin"),
        (part(b"m"), "do not end"),
        (part(b"m")[:-2], "do not end"),
        (form(part(b"m")) + b"epilogue", "follows the form's last"),
        (form(part(b"m"))[:-2] + b"\n\n", "follows the form's last"),
        (form(part(b"m"), part(b"o")), "model twice"),
        (form(part(b"x--b0y", "file")), "do not end"),
        (form(part(b"x\n--b0\r\n", "file")), "do not end"),
        (form(part(b"x\r\n--b0 \r\n", "file")), "stands on no line"),
        (form(part(b"x\r\n--b01", "file")), "stands on no line"),
        (form(part(b"m")).replace(b"\r\n", b"\n"), "stands on no line"),
        (form(part(b"m", headers="X: " + "y" * 9_000 + "\r\n")), "no end within"),
        (b"--b0\r\n\r\nm\r\n--b0--", "headers can't be read"),
        (form(part(b"m", headers='Content-Disposition: form-data; name="x"\r\n')), "headers can't be read"),
        (form(part(b"m", headers="X: a\r\n folded\r\n")), "headers can't be read"),
        (form(part(b"m", headers="X: a\nY: b\r\n")), "headers can't be read"),
        (form(part(b"m", headers="X : a\r\n")), "headers can't be read"),
        (form(part(b"m", headers="X: a\0\r\n")), "headers can't be read"),
        (form(part(b"m", more='; name="n"')), "Content-Disposition"),
        (form(part(b"m", more="; name*=utf-8''n")), "Content-Disposition"),
        (form(part(b"m", "file", '; filename="a\\"; name=\\"model"')), "Content-Disposition"),
        (form(part(b"m", 'mo\\"del')), "Content-Disposition"),
        (form(part(b"m").replace(b"form-data", b"attachment")), "Content-Disposition"),
        (form(part(b"m").replace(b"name=", b"nome=")), "Content-Disposition"),
        (form(part(b"m", more='; filename="m.txt"')), "model is a file"),
        (form(part(b"m", more="; filename*=utf-8''m")), "model is a file"),
        (form(part(b"bQ==", headers="Content-Transfer-Encoding: base64\r\n")), "encoded for transfer"),
        (form(part(b"m", headers="Content-Type: text/plain; charset=utf-16\r\n")), "character set"),
        (form(part(b"\xff")), "not UTF-8"),
        (form(part(b"a\r\nb")), "control characters"),
        (form(part(b"a\0")), "control characters"),
        (form(part(b"m" * 1_025)), "1025 bytes long"),
        (form(*[part(b"", "o")] * (MAX_PARTS + 1)), "more than 1000 parts"),
    ],
)
def test_what_parsers_read_differently_is_refused(body: bytes, says: str) -> None:
    assert says in refused(body)


def test_a_thousand_parts_are_fine() -> None:
    assert found(form(*[part(b"", "o")] * (MAX_PARTS - 1), part(b"m"))) == {"model": "m"}


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\\"b"',
        'multipart/form-data; boundary="a "',
        "multipart/form-data; boundary=a b",
        "multipart/form-data boundary=a",
        "text/plain; boundary=a",
        "multipart/form-data; boundary=ä",
    ],
)
def test_a_boundary_with_two_readings_is_refused(content_type: str) -> None:
    with pytest.raises(ProxyError, match=re.escape("names no boundary")):
        boundary_of(content_type)
