"""`python -m kvt_async.serve`: the server alone, as `kvt serve` starts it."""

import argparse
import sys

from kvt_async.contract.errors import KvtError
from kvt_async.serve import ServerRoom, chosen_backend
from kvt_async.serve.process import load_plugins, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kvt_async.serve", description="kvt's reference server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free port")
    parser.add_argument("--prefill-cache-mb", type=int, default=1024)
    parser.add_argument("--prefix-block", type=int, default=0, help="tokens of a block of reused beginnings; 0: none")
    parser.add_argument("--max-queue", type=int, default=4096)
    parser.add_argument("--backend", default="numpy", help="numpy or kvpress")
    parser.add_argument("--model", "--model-dir", default=None, help="a folder or a .gguf file; kvpress: or a hub name")
    parser.add_argument("--press", default=None, help="kvpress: the policy of requests that name none")
    parser.add_argument("--device", default=None, help="kvpress: auto, cpu, cuda, cuda:0")
    parser.add_argument("--dtype", default=None, help="kvpress: auto, float32, float16, bfloat16")
    parser.add_argument("--plugin", action="append", default=[], help="a Python file with policies of your own")
    args = parser.parse_args()
    try:
        load_plugins(args.plugin)
        kvpress = chosen_backend(args.backend, args.model, args.press, args.device, args.dtype)
        serve(
            args.host,
            args.port,
            model=args.model,
            room=ServerRoom(args.prefill_cache_mb, args.prefix_block, args.max_queue),
            kvpress=kvpress,
        )
    except KvtError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
