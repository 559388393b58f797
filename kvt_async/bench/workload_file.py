"""Which kind of workload a file is, by looking at its head: `kvt bench --workload FILE`."""

from pathlib import Path

from kvt_async.contract.errors import ConfigError

MANIFEST = "manifest.json"
_HEAD_BYTES = 4096


def workload_overrides(path: str) -> list[str]:
    """Overrides that make this file the workload. Raises ConfigError where there is none."""
    file = Path(path)
    if file.is_dir() and (file / MANIFEST).is_file():
        file = file / MANIFEST
    if not file.is_file():
        raise ConfigError(
            f"there is no file {path!r}",
            where="--workload",
            do="Give a manifest.json (or its folder), a .jsonl file of prompts or a trace.",
        )
    return [f"bench.workload.kind={kind_of(file)}", f'bench.workload.path="{file}"']


def kind_of(file: Path) -> str:
    """'manifest', 'trace' or 'jsonl'; what no reader takes is refused by the one that is asked."""
    with file.open("rb") as content:
        head = content.read(_HEAD_BYTES)
    if head.startswith(b'{\n"format": "kvt-manifest'):
        return "manifest"
    first = head.strip().split(b"\n")[0].lower()
    is_table = not first.startswith((b"{", b"[")) and first.count(b",") >= 2
    has_lengths = b'"input_length"' in first or b'"hash_ids"' in first
    return "trace" if is_table or has_lengths or head.startswith(b"\x1f\x8b") else "jsonl"
