"""RULER's generated tasks (Hsieh et al., 2024) as one table."""

from kvt_async.data.sources.ruler_lists import cwe, fwe, vt
from kvt_async.data.sources.ruler_niah import Needles, niah
from kvt_async.data.sources.ruler_task import RulerTask

_ROWS = (
    niah("niah_single_1", "one number hidden in repeated noise", Needles("noise")),
    niah("niah_single_2", "one number hidden in an essay", Needles("essay")),
    niah("niah_single_3", "one UUID hidden in an essay", Needles("essay", values="uuids")),
    niah("niah_multikey_1", "one of 4 keys in an essay", Needles("essay", n_keys=4)),
    niah("niah_multikey_2", "one key among needles: a haystack of others, numbers", Needles("needle")),
    niah("niah_multikey_3", "one key among needles, UUIDs", Needles("needle", keys="uuids", values="uuids")),
    niah("niah_multivalue", "4 values of one key in an essay", Needles("essay", n_values=4)),
    niah("niah_multiquery", "4 keys asked at once in an essay", Needles("essay", n_queries=4)),
    RulerTask("vt", "variables that get one value over 4 hops, in noise", "{context}{question}", 30, vt),
    RulerTask("cwe", "the 10 most common words of a list", "{context}{question}", 120, cwe),
    RulerTask("fwe", "the 3 most frequent coded words (Zipf, alpha 2)", "{context}{question}", 50, fwe),
)
TASKS: dict[str, RulerTask] = {task.key: task for task in _ROWS}
