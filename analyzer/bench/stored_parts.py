"""The rows of bench_parts: steps, slices of a ramp, models of a load, and where it broke an objective."""

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from analyzer.bench.figure_json import dumps, estimate_json, finite, objective_json
from analyzer.bench.figures.part_facts import MODEL
from analyzer.bench.figures.points import Point

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BenchPart:
    """A row of bench_parts."""

    TABLE: ClassVar[str] = "bench_parts"
    KEY: ClassVar[tuple[str, ...]] = ("level", "load", "kind", "part")

    level: str
    load: str
    kind: str
    part: int
    name: str
    value: float | None
    begins_s: float | None
    ends_s: float | None
    n: int
    n_failed: int
    n_margin: int
    figures_json: str
    objectives_json: str


def part_rows(point: Point) -> list[BenchPart]:
    """The rows of bench_parts of one load; none where it has no parts."""
    about: Json = {"level": point.level or "", "load": point.load}
    rows = []
    for part in point.parts:
        figures: Json = {name: estimate_json(figure) for name, figure in part.figures.items()}
        figures |= {"in_flight_mean": finite(part.in_flight_mean), "in_flight_peak": part.in_flight_peak}
        figures |= {"margin_s": part.margin_s}
        if part.settled_s is not None:
            figures["settled_s"] = finite(part.settled_s)
        if part.kind == MODEL:
            figures = {name: value for name, value in figures.items() if "_s" in name and name != "margin_s"}
        same = ("kind", "name", "begins_s", "ends_s", "n", "n_failed", "n_margin")
        rows.append(
            BenchPart(
                **about,
                **{name: getattr(part, name) for name in same},
                part=part.idx,
                value=finite(part.value),
                figures_json=dumps(figures),
                objectives_json=dumps([objective_json(finding) for finding in part.findings]),
            )
        )
    for idx, one in enumerate(point.breaks):
        rows.append(
            BenchPart(
                **about,
                kind="break",
                part=idx,
                name=one.objective.name,
                value=finite(one.value),
                begins_s=None,
                ends_s=None,
                n=one.n,
                n_failed=one.n_beyond,
                n_margin=0,
                figures_json=dumps({"repeats": [finite(value) for value in one.each]}),
                objectives_json="[]",
            )
        )
    return rows


def parts_json(point: Point) -> list[Json]:
    """What --json says of a load's parts: the rows of bench_parts, their JSON columns as objects."""
    rows = []
    for row in part_rows(point):
        columns_of_row = {name: value for name, value in asdict(row).items() if name not in ("level", "load")}
        figures, objectives = (json.loads(columns_of_row.pop(f"{name}_json")) for name in ("figures", "objectives"))
        rows.append({**columns_of_row, "figures": figures, "objectives": objectives})
    return rows
