"""The wheel holds every package of the tree."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_of_the_tree_is_named_in_pyproject() -> None:
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"])
    code = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for top in ("kvt_async", "analyzer", "viewer")
        for p in (ROOT / top).rglob("__init__.py")
    }
    data = {
        "analyzer.report.templates",
        "kvt_async.configs",
        "kvt_async.configs.data",
        "kvt_async.configs.experiments",
        "kvt_async.docs",
        "kvt_async.serve.recite",
        "kvt_async.serve.reference",
        "viewer.pages.static",
        "viewer.pages.templates",
    }
    assert named == code | data


def lines_of(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text("utf-8").splitlines() if line and line[0] != "#"]


def test_constraints_pin_versions_without_addresses() -> None:
    lines = lines_of("constraints.txt")
    assert lines
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in lines)


def test_what_is_installed_is_pinned_by_hash_at_the_versions_of_the_constraints() -> None:
    """pip refuses a line without a hash; this sees that no version was changed in one place alone."""
    hashed = [line for name in ("hashes/core.txt", "hashes/dev.txt") for line in lines_of(name)]
    assert not any("/" in line or "@" in line for line in hashed)
    pins = [line.split()[0].lower().replace("_", "-") for line in hashed if not line.startswith(" ")]
    assert sorted(pins) == sorted(line.lower().replace("_", "-") for line in lines_of("constraints.txt"))
