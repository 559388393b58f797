"""Each level has a server of its own, which somebody else has started (kv.apply.via: endpoint)."""

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings_kv import Apply, Via
from kvt_async.contract.vocabulary import CONSTRAINED, FULL
from kvt_async.ways.way import RunningServer


class Endpoint(RunningServer):
    """kv.apply.endpoints names the URLs of a level by "policy budget", by "budget" for every policy, or by "full" and
    "constrained full"."""

    name = Via.ENDPOINT.value
    one_server = False
    names_mode = True

    def endpoints(self, apply: Apply, policy: str, budget: float, *, is_full: bool) -> str | list[str]:
        table = apply.endpoints or {}
        urls = _urls(table, policy, budget, is_full=is_full)
        if urls is None:
            raise ConfigError(
                f"no endpoint is given for {policy} at {budget:g}",
                where="kv.apply.endpoints",
                details=tuple(f"{key}: {url}" for key, url in table.items()),
                do=f'Add "{policy}": URL, or kv.constrained.base_url.'
                if policy == CONSTRAINED
                else f'Add "{policy} {budget:g}": URL (or "{budget:g}": URL for every policy).',
            )
        return urls


def _urls(table: dict[str, str | list[str]], policy: str, budget: float, *, is_full: bool) -> str | list[str] | None:
    general, name = None, CONSTRAINED if policy == CONSTRAINED else FULL if is_full else None
    for key, urls in table.items():
        words = key.split()
        number = _number(words[-1]) if words else None
        same = number is not None and abs(number - budget) < 1e-9
        if (len(words) == 2 and words[0] == policy and same) or key.strip() == name:
            return urls
        if len(words) == 1 and same:
            general = urls
    return general


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
