"""Whether the server keeps to its seeds, in a sentence; pure. Said where answers should be drawn and it isn't shown."""

from analyzer.results.number_format import percent, plural
from analyzer.results.results import ALL, Results
from kvt_async.contract.vocabulary import SeedVerdict


def seeds_sentence(results: Results) -> str:
    """From full cache's repeats with the same seeds and with others; empty where seeds are kept or none were asked."""
    seeds = next((v.detail["seeds"] for v in results.verdicts if v.bin_idx == ALL and "seeds" in v.detail), None)
    if seeds is None or seeds["verdict"] == SeedVerdict.KEPT:
        return ""
    if seeds["verdict"] == SeedVerdict.NOTHING_DIFFERS:
        examples = plural(seeds["n"], "example")
        return f"The server drew nothing: answers with other seeds are the same as full cache's ({examples})."
    seen = (
        f"of {plural(seeds['n'], 'example')}, {percent(seeds['same'])} of the answers differ from full cache's with "
        f"the same seeds and {percent(seeds['other'])} with others"
    )
    if seeds["verdict"] == SeedVerdict.IGNORED:
        return f"The server ignores seeds ({seen}): where texts part from full cache's isn't shown."
    needed = f"; about {plural(seeds['n_needed'], 'example')} would tell" if seeds["n_needed"] else ""
    return f"Cannot tell whether the server keeps to its seeds ({seen}{needed}): where texts part isn't shown."
