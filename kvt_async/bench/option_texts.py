"""Texts of `kvt bench` options -> overrides of the config. Loaded with the program: keep it light."""

from typing import Any

from kvt_async.contract.errors import ConfigError


def listed(text: str | None, option: str) -> str | None:
    """'1,2,4' -> '[1, 2, 4]'; 'auto' stays."""
    if text is None or text == "auto":
        return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        try:
            float(part)
        except ValueError:
            raise ConfigError(
                f"{part!r} is no number", where=option, do=f"Write {option} 1,2,4 or {option} auto."
            ) from None
    return f"[{', '.join(parts)}]"


def ramp(of: str, text: str | None) -> list[str]:
    """'1:20' -> the override of bench.ramp."""
    if text is None:
        return []
    start, end = _pair(text, f"--ramp-{of}", "1:20")
    return [f"bench.ramp={{of: {of}, start: {start}, to: {end}}}"]


def steps(of: str, text: str | None) -> list[str]:
    """'2:30,8:30,2:30' -> the override of bench.steps."""
    if text is None:
        return []
    pairs = [_pair(part, f"--step-{of}", "2:30,8:30,2:30") for part in text.split(",") if part.strip()]
    return [f"bench.steps=[{', '.join(f'{{{of}: {size}, for_s: {seconds}}}' for size, seconds in pairs)}]"]


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    """The two numbers of '8:30'; seconds may carry their s."""
    left, sep, right = (part.strip() for part in text.partition(":"))
    right = right.removesuffix("s")
    try:
        float(left), float(right)
    except ValueError:
        sep = ""
    if not sep:
        raise ConfigError(f"{text!r} is not two numbers", where=option, do=f"Write {option} {example}.")
    return left, right


def lengths(**given: str | None) -> list[str]:
    """'128' and '{mean: 300, std: 50}' stay, '128,256' becomes a list to draw from."""
    return [
        f"bench.workload.{name}={f'[{text}]' if ',' in text and text.strip()[:1] not in '[{' else text}"
        for name, text in given.items()
        if text is not None
    ]


def models(given: list[str]) -> list[str]:
    """'base=3' 'lora-a' -> the override of bench.models; of one name alone that of model.name."""
    from json import dumps

    shares = []
    for text in given:
        name, sep, weight = text.rpartition("=")
        try:
            shares.append((name, float(weight)) if sep else (text, 1.0))
        except ValueError:
            raise ConfigError(f"{weight!r} is no weight", where="--model", do="Write --model base=3.") from None
    if len(given) == 1 and "=" not in given[0]:
        return [f"model.name={dumps(given[0])}", "bench.models=[]"]
    rows = (f"{{name: {dumps(name)}, weight: {weight:g}}}" for name, weight in shares)
    return [f"bench.models=[{', '.join(rows)}]"] if given else []


def objective(text: str) -> str:
    name, sep, value = text.partition("=")
    if not sep:
        raise ConfigError(f"{text!r} is not METRIC=LIMIT", where="--slo", do="Write --slo ttft_p99_ms=500.")
    return f"bench.slo.{name.strip()}={value.strip()}"


def given(**values: Any) -> list[str]:
    """Overrides of `bench` for the options that were given."""
    return [f"bench.{name}={_yaml(value)}" for name, value in values.items() if value is not None]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
