"""Keys of `bench` of which one decides: what the command line gives takes the place of the config's others."""

from collections.abc import Iterable, Sequence

LOADS = {
    "rate": "null",
    "concurrency": "null",
    "sweep_rate": "null",
    "sweep_concurrency": "null",
    "search_rate": "false",
    "replay": "false",
    "sweep_speed": "null",
    "ramp": "null",
    "steps": "[]",
}
ENDS = {"requests": None, "duration_s": "null"}  # None: has no value that means "not given"
SHAPES = ("ramp", "steps")  # loads that say how long they last
_OFF = ("null", "false", "~", "", "[]")


def settled(overrides: Sequence[str]) -> list[str]:
    """Overrides ('bench.rate=4') with those before them that switch off what they compete with in a file.

    Several rivals on the command line stay as they are: which of them was meant is for the config's own check to ask.
    """
    given = {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in overrides)}
    return [*_switched_off(given), *overrides]


def _switched_off(given: dict[str, str]) -> Iterable[str]:
    shaped = [name for name in SHAPES if _is_given(given, name)]
    if shaped and "bench.requests" not in given:
        yield "bench.requests=auto"  # a shape ends with its seconds
    if "steps" in shaped and "bench.duration_s" not in given:
        yield "bench.duration_s=null"
    for rivals in (LOADS, ENDS):
        chosen = [name for name in rivals if _is_given(given, name)]
        if chosen:
            yield from (f"bench.{name}={off}" for name, off in rivals.items() if off is not None and name not in chosen)
    arrival, shape = given.get("bench.arrival"), given.get("bench.burstiness")
    if arrival not in (None, "gamma") and shape is None:
        yield "bench.burstiness=1.0"  # of the file's gamma arrivals
    if shape is not None and arrival is None:
        yield "bench.arrival=gamma"  # the only one that has a shape
    for key in given:
        if key.startswith("bench.slo.") and key.endswith(("_ms", "_s")):  # one limit in two units is one limit
            stem, _, unit = key.rpartition("_")
            twin = f"{stem}_{'s' if unit == 'ms' else 'ms'}"
            if twin not in given:
                yield f"{twin}=null"


def _is_given(given: dict[str, str], name: str) -> bool:
    """Whether a key of bench, or one below it, has a value."""
    below = f"bench.{name}."
    return given.get(f"bench.{name}", "").lower() not in _OFF or any(key.startswith(below) for key in given)
