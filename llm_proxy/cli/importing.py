"""`llm-proxy import`: writes a proxy.yaml from the config of another proxy, and reports on every field."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from llm_proxy.cli.newfile import write_new
from llm_proxy.cli.options import JsonOption
from llm_proxy.cli.output import complain, stop
from llm_proxy.cli.text import line
from llm_proxy.importing.catalogue import read_catalogue
from llm_proxy.importing.keys import read_keys
from llm_proxy.importing.report import Counts, Row
from llm_proxy.importing.translate import Translation, translate
from llm_proxy.yamlpos import Document, DocumentErrors, load_yaml

app = typer.Typer(help="Configs of other proxies, as proxy.yaml.", no_args_is_help=True)


class _Answer(msgspec.Struct, frozen=True):
    config: str
    report: tuple[Row, ...]
    counts: Counts


@app.callback()
def importing() -> None:
    """Configs of other proxies, as proxy.yaml."""


@app.command()
def litellm(
    source: Annotated[Path, typer.Argument(metavar="CONFIG", help="LiteLLM's config.yaml.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here, to a file that doesn't exist yet.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What /key/list?return_full_object=true answers.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write a LiteLLM config as proxy.yaml, and report of each field: exact, approximate or unsupported.

    Without --out the config goes to standard output and the report to standard error. No secret is copied.
    """
    try:
        found = translate(load_yaml(source), _keys(keys), read_catalogue())
    except DocumentErrors as refused:
        for issue in refused.issues:
            complain(issue)
        raise typer.Exit(2) from refused
    if out is not None:
        # Only the owner may read it: it has the addresses of servers, and hashes of keys.
        write_new(out, found.text, 0o600)
    if as_json:
        answer = _Answer(found.text, found.rows, found.counts)
        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return
    if out is None:
        typer.echo(found.text, nl=False)
    _report(found, out)


def _keys(path: Path | None) -> Document | None:
    if path is None:
        return None
    try:
        return read_keys(path.read_text("utf-8"), str(path))
    except UnicodeDecodeError:
        stop(f"{path}:1:1: is not UTF-8: save it as UTF-8")
    except OSError as error:
        stop(f"{path}:1:1: can't be read: {error.strerror or error}")


def _report(found: Translation, out: Path | None) -> None:
    for said in _lines(found.rows):
        complain(said)
    counts = found.counts
    complain(f"{counts.exact} exact, {counts.approximate} approximate, {counts.unsupported} unsupported.")
    if out is not None:
        complain(f"Wrote {out}. Next: llm-proxy check --config {out}")


def _lines(rows: Iterable[Row]) -> Iterable[str]:
    for row in rows:
        place = f"{row.file}:{row.line}" if row.line is not None else row.file
        became = f" -> {row.became}" if row.became else ""
        note = f" ({row.note})" if row.note else ""
        yield f"{place}: {row.verdict:<11} {line(f'{row.field}{became}{note}')}"
