"""default.yaml's comments, put behind the keys of any config that is printed."""

import re
from collections.abc import Iterator

import yaml

from kvt_async.contract.paths import shipped_configs

_KEY = re.compile(r"^( *)([A-Za-z_][\w]*):(.*?)$")
_COMMENT = re.compile(r"\s#\s*(.*)$")
_COLUMN = 40


def commented(text: str) -> str:
    """YAML as `dump_yaml` writes it, with what default.yaml says of each key; as it is where that is not at hand."""
    try:
        comments = dict(_comments((shipped_configs() / "default.yaml").read_text(encoding="utf-8")))
    except OSError:
        return text
    lines = [
        f"{line:<{_COLUMN}}  # {comments[path]}" if path in comments and _is_whole(value) else line
        for path, value, line in _paths(text)
    ]
    result = "\n".join(lines) + "\n"
    return result if yaml.safe_load(result) == yaml.safe_load(text) else text


def _comments(text: str) -> Iterator[tuple[str, str]]:
    for path, value, _ in _paths(text):
        if path and (found := _COMMENT.search(value)):
            yield path, found[1]


def _paths(text: str) -> Iterator[tuple[str, str, str]]:
    """(dotted path of a key or '', what stands behind it, the line) of every line."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _KEY.match(line)
        if found is None:
            yield "", "", line
            continue
        indent = len(found[1])
        above = [(n, name) for n, name in above if n < indent] + [(indent, found[2])]
        yield ".".join(name for _, name in above), found[3], line


def _is_whole(value: str) -> bool:
    """Whether a value ends on its line: a quoted text may go on below."""
    text = value.strip()
    return len(text) > 1 and text[-1] == text[0] if text[:1] in ("'", '"') else text[:1] not in ("|", ">")
