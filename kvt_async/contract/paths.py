"""Where things lie. Relative paths are from the working directory; nothing is created here."""

import os
from dataclasses import dataclass
from pathlib import Path

DB_NAME = "kv_transition.sqlite"
SHIPPED = "shipped:"


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Paths of one experiment group."""

    run_dir: Path
    db: Path

    @property
    def plots(self) -> Path:
        return self.run_dir / "plots"

    @property
    def report_md(self) -> Path:
        return self.run_dir / "report.md"

    @property
    def report_html(self) -> Path:
        return self.run_dir / "report.html"

    @property
    def log(self) -> Path:
        return self.run_dir / "run.log"


def run_paths(runs_dir: str, exp_group_id: str, db_path: str = "auto") -> RunPaths:
    """`db_path: auto` is runs_dir/exp_group_id/kv_transition.sqlite; reports lie beside the database."""
    run_dir = Path(runs_dir) / exp_group_id
    if db_path == "auto":
        return RunPaths(run_dir, run_dir / DB_NAME)
    db = Path(db_path)
    return RunPaths(db.parent, db)


def manifest_path(data_dir: str, dataset_id: str) -> Path:
    return Path(data_dir) / "processed" / dataset_id / "manifest.json"


def raw_dir(data_dir: str, source: str) -> Path:
    """Cache of downloaded archives."""
    return Path(data_dir) / "raw" / source


def user_cache() -> Path:
    """What this host can make again: in XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvt"


def shipped_configs() -> Path:
    """The configs folder: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def document(name: str) -> str:
    """A page of the documentation as it can be opened here: in the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "docs" / name
    page = inside if inside.is_file() else package.parent / "docs" / name
    return str(page.relative_to(Path.cwd())) if page.is_relative_to(Path.cwd()) else str(page)


def data_path(path: str) -> Path:
    """A data file named in a config: as given, or `shipped:data/NAME` for one that travels with kvt."""
    return shipped_configs() / path.removeprefix(SHIPPED) if path.startswith(SHIPPED) else Path(path)
