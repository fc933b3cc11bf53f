"""Writes what the matrix expects anew: `python -m tests.golden.matrix.regenerate`. Read the diff."""

from __future__ import annotations

import json
import shutil

from tests.golden.matrix.cells import FOLDER, SITUATIONS, cells


def regenerate() -> None:
    dropped: dict[str, dict[str, list[str]]] = {name: {} for name in SITUATIONS}
    for name in SITUATIONS:
        shutil.rmtree(FOLDER / name / "expected", ignore_errors=True)
        (FOLDER / name / "expected").mkdir()
    for cell in cells():
        if cell.same:
            continue
        sent = [cell.sent(stream=stream) for stream in (False, True)]
        cell.path("sent.jsonl").write_bytes(b"".join([of.body + b"\n" for of in sent]))
        dropped[cell.situation][f"{cell.caller}-{cell.vendor}"] = list(sent[0].dropped)
        cell.path("got.json").write_bytes(cell.got(stream=False))
        cell.path("got.sse").write_bytes(cell.got(stream=True))
    for name, found in dropped.items():
        (FOLDER / name / "expected" / "dropped.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    regenerate()
