"""Where two answers part: how many characters they begin with alike, for a column of pairs at once."""

import numpy as np
import numpy.typing as npt
import polars as pl


def first_divergence(text: pl.Series, other: pl.Series) -> pl.Series:
    """The number of characters (code points) that each text and the other one begin with alike; null where one is null.

    Where one text is the beginning of the other it is that one's length.
    """
    length = pl.min_horizontal(pl.col("text").str.len_chars(), pl.col("other").str.len_chars())
    frame = pl.DataFrame({"text": text, "other": other}).with_row_index("row").drop_nulls()
    frame = frame.with_columns(length=length.cast(pl.Int64))
    alike = frame["length"].to_numpy().copy()
    if frame.height:
        here, there = _characters(*(frame.select(pl.col(name).str.head("length"))[name] for name in ("text", "other")))
        differs = np.append(np.flatnonzero(here != there), len(here))
        ends = np.cumsum(alike)
        first = differs[np.searchsorted(differs, ends - alike)]
        alike = np.where(first < ends, first - (ends - alike), alike)
    result = np.full(len(text), -1, dtype=np.int64)
    result[frame["row"].to_numpy()] = alike
    return pl.Series("first_divergence", result).replace(-1, None)


def _characters(*columns: pl.Series) -> list[npt.NDArray[np.generic]]:
    """The characters of each column, one text after the other: a number each, of a byte where all of them are ASCII."""
    joined = ["".join(column.to_list()) for column in columns]
    encoding, kind = ("ascii", np.uint8) if all(map(str.isascii, joined)) else ("utf-32-le", np.uint32)
    return [np.frombuffer(text.encode(encoding), dtype=kind) for text in joined]
