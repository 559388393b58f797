"""Files that lm-eval and inspect write here and now are taken as they print them (make test-imports)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.vocabulary import Unit
from kvt_async.import_command import Terms, imported
from kvt_async.imports.foreign_log import LogChoice

pytestmark = pytest.mark.imports

INSPECT = """
import json, sys
from inspect_ai import Task, eval, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import f1, includes
from inspect_ai.solver import generate

level, folder = sys.argv[1:]
rows = [Sample(id=f"s{n}", input=f"Which number is {n}?", target=str(n)) for n in range(20)]

@task
def numbers():
    return Task(dataset=MemoryDataset(rows), solver=generate(), scorer=[includes(), f1()])

def answer(messages, *_):
    n = int(messages[-1].text.rstrip("?").rpartition(" ")[2])
    output = ModelOutput.from_content("mockllm/model", str(n) if level == "full" or n % 3 else "none at all")
    output.usage = ModelUsage(input_tokens=9, output_tokens=2, total_tokens=11)  # else it counts, after a download
    return output

model = get_model("mockllm/model", custom_outputs=answer)
(log,) = eval(numbers(), model=model, log_dir=folder, epochs=2, display="none")
print(json.dumps({score.name: score.metrics["accuracy" if score.name == "includes" else "mean"].value
                  for score in log.results.scores}))
"""
TASK = """
task: numbers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Which number is {{{{n}}}}?"
doc_to_target: "{{{{n}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 8}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, regexes_to_ignore: ["{ignored}"]}}
"""


def means(facts: dict[str, Any]) -> list[tuple[Any, int]]:
    assert all(run["agrees"] for run in facts["runs"])
    return [(run["mean"], run["n"]) for run in facts["runs"]]


@pytest.mark.parametrize("scorer", ["includes", "f1"])
def test_an_inspect_log_is_taken_as_inspect_prints_it(tmp_path: Path, scorer: str) -> None:
    printed = {}
    for level in ("full", "low"):
        folder = tmp_path / level
        command = [sys.executable, "-c", INSPECT, level, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        printed[level] = json.loads(done.stdout.splitlines()[-1])[scorer]
    levels = [f"full={tmp_path / 'full'}", f"0.5={tmp_path / 'low'}"]
    facts = imported(levels, "g", LogChoice(metric=scorer), Terms(Unit.FRACTION, None, str(tmp_path)))
    assert means(facts) == [(pytest.approx(printed["full"]), 40), (pytest.approx(printed["low"]), 40)]
    assert printed["low"] < printed["full"] == 1


def test_a_run_of_lm_eval_is_taken_as_lm_eval_prints_it(tmp_path: Path) -> None:
    """Its dummy model answers nothing; a metric that ignores everything then finds all right."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(12)))
    printed = {}
    for level, ignored in (("full", ".*"), ("low", "nothing")):
        (tmp_path / level).mkdir()
        (tmp_path / level / "numbers.yaml").write_text(TASK.format(rows=rows, ignored=ignored))
        out = tmp_path / f"out_{level}"
        command = [sys.executable, "-m", "lm_eval", "--model", "dummy", "--tasks", "numbers", "--log_samples"]
        command += ["--include_path", str(tmp_path / level), "--output_path", str(out)]
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        (results,) = out.rglob("results_*.json")
        printed[level] = json.loads(results.read_text())["results"]["numbers"]["exact_match,none"]
    levels = [f"full={tmp_path / 'out_full'}", f"0.5={tmp_path / 'out_low'}"]
    facts = imported(levels, "g", LogChoice(), Terms(Unit.FRACTION, None, str(tmp_path)))
    assert means(facts) == [(printed["full"], 12), (printed["low"], 12)]
