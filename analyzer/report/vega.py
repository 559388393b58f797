"""The JavaScript that draws a page's charts, inside the page."""

import os
from contextlib import suppress
from functools import cache
from importlib import metadata

from kvt_async.contract.paths import user_cache


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as vl-convert carries them, so the page needs no network.

    It puts them together anew in seconds, so the user's cache folder keeps them, where it can be written.
    """
    import vl_convert

    from analyzer.charts.style import vegalite_version

    kept = user_cache() / f"vega-{vegalite_version()}-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle(  # type: ignore[call-arg]  # its stub hides that snippet has a default
        vl_version=vegalite_version()
    )
    text = bundle.replace("</script", "<\\/script")
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_suffix(f".{os.getpid()}")
        half.write_text(text, encoding="utf-8")
        half.replace(kept)  # nobody ever reads half a file
    return text
