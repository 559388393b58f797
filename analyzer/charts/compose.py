"""Layers, columns and small multiples of Altair's unit charts, joined as plain Vega-Lite.

Altair's own layer, facet and vconcat copy every part deeply each time two are joined, which was most of the time a
chart took. A unit chart is cheaper, joining JSON is cheap, and marks that hang on no row are made once for all tasks
that share their levels: what makes them is cached, and each is put `on` the rows of a task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt

Datasets = dict[str, Any]
Resolve = Mapping[str, Mapping[str, str]]
LOOKS = 128  # of a kind of marks that are kept: tasks share their levels, and have a few sets of bins
OWN_X: Resolve = {"axis": {"x": "independent"}}  # an axis below every panel


@dataclass(frozen=True)
class Drawing:
    """Vega-Lite JSON without schema, configuration and rows; the rows by the name under which `spec` asks for them.

    Drawings share their parts, so nothing in a `spec` is ever changed.
    """

    spec: dict[str, Any]
    datasets: Datasets

    def on(self, rows: "Drawing") -> "Drawing":
        """The same mark, which has no rows of its own, of these."""
        return Drawing({**rows.spec, **self.spec}, rows.datasets)


def source(rows: alt.InlineData) -> Drawing:
    """Rows alone, for several marks to be put on."""
    datasets: Datasets = {}
    return Drawing({"data": _json(alt.Chart(rows), datasets)["data"]}, datasets)


def unit(chart: alt.Chart, picked: alt.Parameter | None = None) -> Drawing:
    """One mark and its encoding; `picked`: a selection that is made on it."""
    datasets: Datasets = {}
    spec = _json(chart, datasets)
    if chart.data is alt.Undefined:
        del spec["data"]  # Altair's placeholder; the rows are the whole chart's
    if picked is not None:
        spec["params"] = [_json(picked.param, datasets)]
    return Drawing(spec, datasets)


def layer(
    *parts: alt.Chart | Drawing, data: alt.InlineData | None = None, resolve: Resolve | None = None, **size: Any
) -> Drawing:
    """Parts over each other, the first at the back; `data` for those without rows of their own; size: width, height."""
    datasets: Datasets = {}
    spec = {"layer": _parts(parts, datasets), **_joined(datasets, data, resolve)}
    return Drawing({**spec, **{name: _json(value, datasets) for name, value in size.items()}}, datasets)


def vconcat(*parts: alt.Chart | Drawing, resolve: Resolve | None = None) -> Drawing:
    """Parts below each other."""
    datasets: Datasets = {}
    return Drawing({"vconcat": _parts(parts, datasets), **_joined(datasets, None, resolve)}, datasets)


def facet(part: Drawing, by: alt.Facet | Mapping[str, Any], *, columns: int, resolve: Resolve | None = None) -> Drawing:
    """Small multiples of `part`, which has the data: a panel for each value of `by`."""
    datasets = dict(part.datasets)
    inner = {k: v for k, v in part.spec.items() if k != "data"}
    each = dict(by) if isinstance(by, Mapping) else _json(by, datasets)
    spec = {"data": part.spec["data"], "facet": each, "columns": columns, "spec": inner}
    return Drawing({**spec, **_joined(datasets, None, resolve)}, datasets)


@lru_cache(LOOKS)
def panels(field: str, order: tuple[str, ...], header: str | None = None) -> Mapping[str, Any]:
    """A panel for each value of a column of names, in this order; header: an expression for its words."""
    words = alt.Undefined if header is None else alt.Header(labelExpr=header)
    return dict(_json(alt.Facet(f"{field}:N", sort=list(order), title=None, header=words), {}))


def whole(chart: alt.Chart | Drawing) -> dict[str, Any]:
    """A complete specification, with its schema and rows."""
    drawing = chart if isinstance(chart, Drawing) else unit(chart)
    return {"$schema": alt.SCHEMA_URL, **drawing.spec, "datasets": drawing.datasets}


def pixels(channel: str, value: float | str) -> Any:
    """A place in pixels, or "width", for the channel X, X2 or Y. Altair's own classes of these have no types."""
    return getattr(alt, f"{channel}Value")(value)


def _parts(parts: Sequence[alt.Chart | Drawing], datasets: Datasets) -> list[dict[str, Any]]:
    drawings = [part if isinstance(part, Drawing) else unit(part) for part in parts]
    for drawing in drawings:
        datasets.update(drawing.datasets)
    return [drawing.spec for drawing in drawings]


def _joined(datasets: Datasets, data: alt.InlineData | None, resolve: Resolve | None) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if data is not None:
        rows = source(data)
        own = rows.spec
        datasets.update(rows.datasets)
    return own | ({} if resolve is None else {"resolve": {what: dict(how) for what, how in resolve.items()}})


def _json(part: Any, datasets: Datasets) -> Any:
    """Unvalidated: the tests hold every chart against Vega-Lite's schema, once it is whole."""
    if isinstance(part, int | float):
        return part
    return part.to_dict(validate=False, context={"top_level": False, "datasets": datasets})
