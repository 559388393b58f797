"""`kvt view` over a large group: how long its first page and its filters take, and how much memory the server uses.

    python scripts/bench/view.py DIR [--text amber]

DIR holds the group, for example what `python scripts/bench/scale.py --rows 1000000 --keep DIR` leaves. The server is a
process of its own; times are those of whole requests over HTTP, the best and the worst of three. Memory is the highest
resident set of the server. The first request of answers comes before the index is made, which is timed too.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

TOKEN = "token-of-the-benchmark"
MIDDLE = 25_000 << 31  # the place after example 25,000: keys hold answer, turn and level in their lower bits


def get(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
        body: bytes = answer.read()
        return body


def timed(name: str, address: str, times: int = 3) -> dict[str, object]:
    """Print how long a request took, and give the last answer."""
    took = []
    for _ in range(times):
        before = time.perf_counter()
        body = get(address)
        took.append(time.perf_counter() - before)
    answer = json.loads(body)
    n = answer.get("n", "-") if isinstance(answer, dict) else "-"
    print(f"  {name:44} {min(took):7.3f} s to {max(took):7.3f} s   {n} answers")
    return answer if isinstance(answer, dict) else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", default="amber", help="to search for")
    args = parser.parse_args()
    command = [sys.executable, "-m", "kvt_async", "view", str(args.folder), "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"KVT_VIEW_TOKEN": TOKEN})
    assert server.stdout is not None
    try:
        found = re.search(r"http://[^/]+", server.stdout.readline())
        assert found is not None
        url = found[0]
        key = json.loads(get(f"{url}/api/groups"))[0]["key"]
        answers = f"{url}/api/g/{key}/answers"
        first = timed("first page, before the index", answers, times=1)
        before = time.perf_counter()
        while not first.get("whole"):
            time.sleep(0.3)  # as the page does
            first = json.loads(get(answers))
        print(f"  {'until the index was made':44} {time.perf_counter() - before:7.3f} s")
        timed("first page", answers)
        counts = first["counts"]
        assert isinstance(counts, dict)
        level, length = counts["level"][-2][0], counts["bin"][1][0]
        chosen: list[dict[str, str]] = [
            {"level": level},
            {"level": level, "differs": "yes"},
            {"outcome": "wrong"},
            {"bin": length, "outcome": "partly", "differs": "yes"},
            {"label": counts["label"][-1][0]},
            {"text": args.text},
            {"text": "nobody ever said this"},
            {"text": args.text, "level": level, "differs": "yes"},
        ]
        for query in chosen:
            timed(", ".join(query.values())[:44], f"{answers}?{urlencode(query)}")
        rows = json.loads(get(f"{answers}?{urlencode({'after': str(MIDDLE)})}"))["rows"]
        timed("a page in the middle", f"{answers}?after={MIDDLE}")
        timed("one answer beside full cache's", f"{url}/api/g/{key}/answer?{urlencode({'id': rows[0]['id']})}")
        timed("progress", f"{url}/api/g/{key}/progress", times=1)
        status = Path(f"/proc/{server.pid}/status").read_text("utf-8")
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak is not None
        print(f"  {'memory, highest':44} {int(peak[1]) / 1024:7.0f} MiB")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
