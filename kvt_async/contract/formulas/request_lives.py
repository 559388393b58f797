"""When the requests of one window began, spoke and ended: rates are reckoned from it, by runner and analyzer alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SPREAD_POINTS = 64  # of a reply whose chunk times are not stored


@dataclass(frozen=True, slots=True)
class Lives:
    """Requests of one window in the order in which they began, arrays of shape [n]; seconds on the window's clock.

    `begin`: started, in an open loop due. `end`: the request was over and its place free again; `finished`: its last
    text, else its end. Tokens: as the server or the chunks count them, of failures as they were asked for.
    `arrival_s`, `arrival_of` [m]: every arrival of output and the request that it belongs to; `spread`: for some
    requests that have output no arrivals are stored, and theirs are evenly spaced between first and last text.
    """

    begin: Floats
    end: Floats
    finished: Floats
    first: Floats
    ok: Bools
    measured: Bools
    input_tokens: Floats
    output_tokens: Floats
    arrival_s: Floats
    arrival_of: Ints
    spread: bool
    talks: "Talks | None" = None  # each life is a conversation of several requests; tokens are those of the answered

    @property
    def n(self) -> int:
        return len(self.begin)

    @property
    def answered(self) -> Floats:
        """Requests that were answered in each life."""
        return self.ok.astype(np.float64) if self.talks is None else self.talks.answered

    @property
    def started(self) -> Floats:
        """Requests that were sent in each life."""
        return np.ones(self.n) if self.talks is None else self.talks.started

    @property
    def idle(self) -> Floats:
        """Seconds of each life in which its user thought, as planned."""
        return np.zeros(self.n) if self.talks is None else self.talks.idle

    @property
    def noun(self) -> str:
        return "requests" if self.talks is None else "conversations"


@dataclass(frozen=True, slots=True)
class Talks:
    """What conversations have that requests don't, arrays of shape [n]: see `Lives.answered`, `started` and `idle`.

    `life`: seconds as they would have been had the load lasted to the end of each. `ended` [m]: when each turn had.
    """

    answered: Floats
    started: Floats
    idle: Floats
    life: Floats
    ended: Floats


def lives_of(columns: dict[str, Floats], chunks: Sequence[bytes | None] | None) -> Lives:
    """From columns of one session's requests, shape [n], NaN where a mark is missing: `begin`, `start`, `end`,
    `finished`, `first`, `last` in seconds, `ok`, `measured` (0 or 1), `input_tokens`, `output_tokens`.

    Requests without a beginning or an end are left out. `chunks`: telemetry.chunks, whose times count from `start`.
    """
    keep = kept(columns)
    taken = {name: column[keep] for name, column in columns.items()}
    ok = taken["ok"] > 0
    times, owner = np.empty(0), np.empty(0, dtype=np.int64)
    if chunks is not None:
        offsets, bounds = chunk_offsets([chunks[int(i)] if good else None for i, good in zip(keep, ok, strict=True)])
        owner = np.repeat(np.arange(len(keep)), np.diff(bounds))
        times = taken["start"][owner] + offsets
    silent = ok & (np.bincount(owner, minlength=len(keep)) == 0) & (taken["output_tokens"] > 0)
    if silent.any():
        more, theirs = _evenly(taken, np.flatnonzero(silent))
        times, owner = np.concatenate((times, more)), np.concatenate((owner, theirs))
    return Lives(
        begin=taken["begin"],
        end=np.fmax(taken["end"], taken["begin"]),
        finished=np.where(np.isnan(taken["finished"]), taken["end"], taken["finished"]),
        first=taken["first"],
        ok=ok,
        measured=taken["measured"] > 0,
        input_tokens=np.nan_to_num(taken["input_tokens"]),
        output_tokens=np.nan_to_num(taken["output_tokens"]),
        arrival_s=times,
        arrival_of=owner,
        spread=bool(silent.any()),
    )


def kept(columns: dict[str, Floats]) -> Ints:
    """Places of the requests that have a beginning and an end, in the order in which they began."""
    keep = np.flatnonzero(~np.isnan(columns["begin"]) & ~np.isnan(columns["end"]))
    return keep[np.argsort(columns["begin"][keep], kind="stable")]


def _evenly(taken: dict[str, Floats], silent: Ints) -> tuple[Floats, Ints]:
    last = np.where(np.isnan(taken["last"][silent]), taken["end"][silent], taken["last"][silent])
    first = np.where(np.isnan(taken["first"][silent]), last, taken["first"][silent])
    steps = (np.arange(SPREAD_POINTS) + 0.5) / SPREAD_POINTS
    times = first[:, None] + (last - first)[:, None] * steps
    return times.ravel(), np.repeat(silent, SPREAD_POINTS)


def chunk_offsets(blobs: Sequence[bytes | None]) -> tuple[Floats, Ints]:
    """(offsets, bounds): arrivals of all replies' text chunks, seconds from each one's start, and where each reply's
    lie: offsets[bounds[i] : bounds[i + 1]]. The inverse of chunk_encoding.py, vectorised."""
    lengths = [len(blob or b"") for blob in blobs]
    data = np.frombuffer(b"".join(blob or b"" for blob in blobs), dtype=np.uint8)
    last = data < 0x80  # of its number
    ends = np.flatnonzero(last)
    number = np.zeros(len(data), dtype=np.int64)
    number[1:] = np.cumsum(last)[:-1]
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    place = np.arange(len(data)) - starts[number] if len(data) else number
    values = np.zeros(len(ends), dtype=np.int64)
    np.add.at(values, number, (data & 0x7F).astype(np.int64) << (7 * place))
    bounds = np.concatenate(([0], np.cumsum(last)))[np.cumsum([0, *lengths])] // 2
    total = np.concatenate(([0], np.cumsum(values[::2])))
    before = np.repeat(total[bounds[:-1]], np.diff(bounds))
    return (total[1:] - before) / 1e6, bounds
