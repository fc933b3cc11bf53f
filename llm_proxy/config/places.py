"""Paths and addresses in the config: relative to its file, and safe to show."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What validators need to know of the file being loaded. `base` is the directory it stands in."""

    base: Path


def place_of(text: str, info: ValidationInfo) -> Path:
    """`text` as a path relative to the config file; `~` is the home directory."""
    if not text.strip():
        raise ValueError("is empty: name a file")
    context = cast("LoadContext | None", info.context)
    return (context.base if context else Path()) / Path(text).expanduser()


def _existing_file(value: object, info: ValidationInfo) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    path = place_of(_text(value), info)
    if path.is_dir():
        raise ValueError(f"names {path}, which is a directory: name a file")
    if not path.exists():
        raise ValueError(f"names {path}, which does not exist: create it, or correct the path")
    return path


def _key_file(value: object, info: ValidationInfo) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    text = _text(value)
    if not text.startswith("file:"):
        raise ValueError("must be file:PATH: the key is kept in a file of its own, made at first start")
    return place_of(text.removeprefix("file:"), info)


def _folder(value: object, info: ValidationInfo) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    path = place_of(_text(value), info)
    if path.exists() and not path.is_dir():
        raise ValueError(f"names {path}, which is no directory: name one, or what can be made one")
    return path


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 (pydantic reports ValueError)
    return value


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ValueError("is not a valid address: write http://host:port/path") from error
    if parts.scheme not in ("http", "https") or not usable:
        raise ValueError("must be an http:// or https:// address with a host")
    if "@" in parts.netloc:
        raise ValueError("must hold no user or password: credentials belong in their own key")
    if parts.fragment:
        raise ValueError("must hold no #fragment: leave it out")
    return url.rstrip("/")


def _public(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "must be https://: what it leads to is secret; only this machine itself does without"
        )
    if parts.query:
        raise ValueError("must hold no ?query: leave it out")
    return url


def is_loopback(host: str) -> bool:
    """Whether what goes to `host` stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")


def _store(value: object) -> SecretStr:
    """SQLAlchemy's form of the URL, PostgreSQL through psycopg 3. Raises ValueError without any of it."""
    if isinstance(value, SecretStr):
        return value
    scheme, _, rest = _text(value).partition("://")
    match scheme:
        case "sqlite":
            return SecretStr(_sqlite(rest))
        case _ if scheme in _POSTGRES:
            url = f"postgresql+psycopg://{rest}"
        case _:
            raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE")
    try:
        make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError(
            "is not a valid postgresql:// URL: percent-encode special characters of user and password"
        ) from error
    return SecretStr(url)


def _sqlite(rest: str) -> str:
    if not rest.startswith("/"):
        raise ValueError(
            "must have three slashes before a relative file, four before an absolute: sqlite:///FILE"
        )
    database = rest[1:].partition("?")[0]
    if not database or ":memory:" in database:
        raise ValueError("must name a file, as in sqlite:///llm-proxy.db: records outlive the process")
    return f"sqlite://{rest}"


ExistingFile = Annotated[Path | None, BeforeValidator(_existing_file)]
KeyFile = Annotated[Path | None, BeforeValidator(_key_file)]
Folder = Annotated[Path | None, BeforeValidator(_folder)]
Address = Annotated[str, AfterValidator(_address)]
PublicUrl = Annotated[str, AfterValidator(_address), AfterValidator(_public)]
StoreUrl = Annotated[SecretStr, BeforeValidator(_store)]
"""Secret as a whole: a password may stand before the host or in the query."""
