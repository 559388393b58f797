"""Lives of conversations, made of those of their turns: what a rate is reckoned from where users think between turns.

A user of a closed loop is busy with one conversation after the other, thinking included, so that it is the conversation
that keeps a place, and its turns and tokens are the reward of a renewal: see throughput.py. In an open loop it is
conversations that arrive. Which turn of which conversation a request is, decides how long it takes and what comes after
it; conversations are drawn one by one, and are independent.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from kvt_async.contract.formulas.request_lives import Floats, Ints, Lives, Talks, kept, lives_of


def window_lives(
    columns: dict[str, Floats],
    chunks: Sequence[bytes | None] | None,
    until_s: float | None,
    turns_seen: Mapping[int, int] | None = None,
) -> Lives:
    """`lives_of`; where the columns `conversation`, `turn` and `think` (seconds) say that these are turns, lives of
    conversations. `turns_seen`: of a window that was broken off, how many turns each conversation had in all windows:
    those that went on in another are left out of this one."""
    lives = lives_of(columns, chunks)
    if np.isnan(columns["conversation"]).all():
        return lives
    order = kept(columns)
    conversation, turn = (columns[name][order].astype(np.int64) for name in ("conversation", "turn"))
    last = {name: int(turn[conversation == name].max()) for name in (turns_seen or {}) if name in conversation}
    unfinished = [name for name, number in last.items() if number + 1 < (turns_seen or {})[name]]
    return conversation_lives(
        lives, conversation, turn, columns["think"][order], until_s, np.array(unfinished, dtype=np.int64)
    )


def conversation_lives(
    turns: Lives, conversation: Ints, turn: Ints, think_s: Floats, until_s: float | None, unfinished: Ints
) -> Lives:
    """The conversations of one window in the order in which they began. `conversation`, `turn`, `think_s` (before it,
    as planned; NaN: none): of each life of `turns`, shape [n]. `until_s`: the first place stayed empty; from there on
    there was less load, and what began later is reckoned to take as long as turns of its number did before.
    `unfinished`: conversations that the window's end broke off; they are left out, as are single requests under way.
    """
    keep = ~np.isin(conversation, unfinished)
    names, first, of = np.unique(conversation[keep], return_index=True, return_inverse=True)
    rows = np.flatnonzero(keep)
    n = len(names)

    def total(values: Floats) -> Floats:
        return np.bincount(of, weights=values[rows], minlength=n).astype(np.float64)

    def last(values: Floats) -> Floats:
        ends = np.full(n, -np.inf)
        np.maximum.at(ends, of, values[rows])
        return ends

    ok = turns.ok.astype(np.float64)
    begin, end = turns.begin[rows[first]], last(turns.end)
    idle = np.nan_to_num(think_s)
    idle[rows[first]] = 0.0  # of the first turn that is seen no pause lies in the window
    life = end - begin + total(_gained(turns, turn, until_s))
    order = np.argsort(begin, kind="stable")
    place = np.full(n, 0)
    place[order] = np.arange(n)
    number = np.full(turns.n, -1)
    number[rows] = place[of]
    arrives = number[turns.arrival_of]
    return Lives(
        begin=begin[order],
        end=end[order],
        finished=last(turns.finished)[order],
        first=np.full(n, np.nan),
        ok=(total(ok) > 0)[order],
        measured=turns.measured[rows[first]][order],
        input_tokens=total(ok * turns.input_tokens)[order],
        output_tokens=total(ok * turns.output_tokens)[order],
        arrival_s=turns.arrival_s[arrives >= 0],
        arrival_of=arrives[arrives >= 0],
        spread=turns.spread,
        talks=Talks(
            answered=total(ok)[order],
            started=total(np.ones(turns.n))[order],
            idle=total(idle)[order],
            life=life[order],
            ended=turns.finished,
        ),
    )


def _gained(turns: Lives, turn: Ints, until_s: float | None) -> Floats:
    """Seconds [n] that each turn would have taken more under the load that ended at `until_s`."""
    gained = np.zeros(turns.n)
    if until_s is None:
        return gained
    took = turns.end - turns.begin
    full = turns.ok & (turns.end <= until_s)
    for number in np.unique(turn):
        late = turns.ok & (turn == number) & (turns.begin >= until_s)
        usual = took[full & (turn == number)]
        if late.any() and len(usual):
            gained[late] = usual.mean() - took[late]
    return gained
