"""inspect: a `.eval` log, read by inspect's own reader (`inspect_ai.log`, extra `inspect`). Read at 0.3.285."""

import contextlib
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.imports.foreign_log import ForeignAnswer, ForeignLog, LogChoice, as_text, chosen, unit_score

_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # as inspect's value_to_float has them


def read(path: Path, wanted: LogChoice) -> list[ForeignLog]:
    """The log of an `.eval` file: one task. Raises ConfigError where inspect is not installed, the log can't be read,
    the eval did not end well, or several scorers are there and none is chosen."""
    log = _module()
    try:
        head = log.read_eval_log(str(path), header_only=True)
    except Exception as error:
        raise ConfigError(f"inspect can't read this log: {_first_line(error)}", where=str(path)) from None
    task = str(head.eval.task)
    if wanted.task is not None and wanted.task != task:
        return []
    scores = head.results.scores if head.results else []
    if not scores:
        raise ConfigError(
            f"this log holds no scores: its status is {head.status}",
            where=str(path),
            do="Score it with `inspect score`, or import a log that ended.",
        )
    scorer = chosen(sorted({score.name for score in scores}), wanted.metric, "scorer", "--metric", path)
    its = next(score for score in scores if score.name == scorer)
    mean = next((m.value for name, m in its.metrics.items() if name in ("accuracy", "mean")), None)
    notes = []
    if its.reducer not in (None, "mean"):
        notes.append(f"inspect reduced epochs by {its.reducer}; here an example's score is the mean of its answers.")
        mean = None
    if its.unscored_samples:
        notes.append(f"{its.unscored_samples} samples have no score: inspect leaves them out, here they score 0.")
    return [
        ForeignLog(
            path=path,
            tool=f"inspect {head.eval.packages.get('inspect_ai', '')}".strip(),
            model=str(head.eval.model),
            task=task,
            metric=scorer,
            variant="",
            made_at=str(head.eval.created),
            answers=partial(_answers, path, scorer),
            mean=None if mean is None else float(mean),
            notes=tuple(notes),
        )
    ]


def _module() -> Any:
    try:
        return import_module("inspect_ai.log")
    except ImportError:
        raise ConfigError(
            "inspect's own reader is needed for an .eval log",
            do="Install it: pip install 'kvt[inspect]'. Or convert the log to Every Eval Ever and import that.",
        ) from None


def _answers(path: Path, scorer: str) -> Iterator[ForeignAnswer]:
    log = _module()
    try:
        for sample in log.read_eval_log_samples(str(path), all_samples_required=False):
            yield _answer(sample, scorer, f"{path}: sample {sample.id}")
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"inspect can't read this log: {_first_line(error)}", where=str(path)) from None


def _answer(sample: Any, scorer: str, where: str) -> ForeignAnswer:
    score: Any = (sample.scores or {}).get(scorer)
    usage = list(sample.model_usage.values()) if sample.model_usage else []
    target = sample.target
    error = sample.error.message if sample.error else None if score is not None else "it has no score"
    cached = [each.input_tokens_cache_read or 0 for each in usage]
    return ForeignAnswer(
        example_id=str(sample.id),
        epoch=int(sample.epoch) - 1,
        prompt=sample.input if isinstance(sample.input, str) else as_text([_message(m) for m in sample.input]),
        golds=tuple(map(str, target)) if isinstance(target, list) else (str(target),),
        text=sample.output.completion if sample.output else "",
        score=None if error else _number(score.value, scorer, where),
        error=error and _first_line(error),
        finish_reason=_finish(sample),
        prompt_tokens=usage[0].input_tokens + cached[0] if len(usage) == 1 and _is_one_call(sample) else None,
        completion_tokens=usage[0].output_tokens if len(usage) == 1 and _is_one_call(sample) else None,
    )


def _message(message: Any) -> dict[str, str]:
    return {"role": str(message.role), "content": str(message.text)}


def _is_one_call(sample: Any) -> bool:
    """Whether the model was asked once, so that its usage is that of the prompt."""
    return len([message for message in sample.messages if message.role == "assistant"]) <= 1


def _finish(sample: Any) -> str | None:
    choices = sample.output.choices if sample.output else []
    return {"max_tokens": "length"}.get(choices[0].stop_reason, choices[0].stop_reason) if choices else None


def _number(value: object, scorer: str, where: str) -> float:
    if isinstance(value, str):
        if value in _LETTERS:
            return _LETTERS[value]
        with contextlib.suppress(ValueError):
            value = float(value)
    return unit_score(value, scorer, where)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
