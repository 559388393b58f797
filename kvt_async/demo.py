"""`kvt demo`: the reference server as a child process, the sweep, the analysis. What a newcomer runs first."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvt_async.contract.command_line import masked_output
from kvt_async.contract.command_line.options import find_config, with_plugins
from kvt_async.contract.errors import ConfigError, KvtError, MissingPrerequisiteError, ServerError
from kvt_async.contract.load import known_secrets, load_settings
from kvt_async.contract.packaged_models import PACKAGED_MODELS, packaged_model
from kvt_async.records import Json

READY_S = 60
_ERRORS: dict[int, type[KvtError]] = {2: ConfigError, 3: MissingPrerequisiteError}  # by the exit code of the server
_LISTENING = re.compile(r"listening on (http://\S+)")


def run_demo(config: str, overrides: list[str], *, model: str | None = None, quiet: bool = False) -> tuple[int, Json]:
    """Sweep and analyze `config` against a reference server of its own: (exit code, what `kvt all` answers).

    `model`: what the server runs in place of the config's, a folder, a .gguf file or a packaged model's name. A config
    whose model.name is a packaged model's is served that, any other the shipped model.

    The answer is empty when the sweep stopped early. Run again, it sends nothing that is answered already, and starts
    no server when nothing is left to send.
    """
    from analyzer.stages import every_stage
    from kvt_async.status import status
    from kvt_async.sweep.pending import is_complete
    from kvt_async.sweep.sweep import SweepOptions, execute

    began = time.monotonic()
    path = find_config(config)
    overrides = [*_of_model(model), *overrides] if model is not None else overrides
    settings = with_plugins(load_settings(path, overrides))
    masked_output.hide(known_secrets(settings))
    served = model or (settings.model.name if settings.model.name in PACKAGED_MODELS else None)
    say = (lambda _: None) if quiet else print
    if is_complete(settings):
        say(f"everything of {settings.experiment.exp_group_id} is answered already; analysing")
        code = 4 if status(settings)["failures"] else 0
    else:
        what = "a small trained model" if served is None else Path(served).name
        say(f"starting the reference server ({what} with a real, evictable KV cache)")
        own = ["--model", served] if served is not None else []
        files = [word for plugin in settings.plugins if not plugin.package for word in ("--plugin", plugin.path)]
        with reference_server(*own, *files) as url:
            at_url = load_settings(path, [*overrides, f"engine.base_url={url}"])
            settings = at_url.model_copy(update={"plugins": settings.plugins})
            code = execute(settings, SweepOptions(prepare_first=True, config=config, quiet=quiet))
    if code not in (0, 4):
        return code, {}
    answer = every_stage(settings)
    lines = [*answer.lines, f"done in {time.monotonic() - began:.0f} s"]
    return code, answer.json() | {"lines": lines}


def _of_model(model: str) -> list[str]:
    """Overrides that make a config ask for this model, count with its tokenizer and reckon its bytes."""
    if packaged_model(model) is not None:
        return [f"{key}={model}" for key in ("model.name", "model.config", "tokenizer.name")]
    path = Path(model).resolve()
    return [f"model.name={path.name}", f"model.config={path}", f"tokenizer.name={path}"]


@contextmanager
def reference_server(*arguments: str) -> Iterator[str]:
    """Base URL of a reference server on a free port, stopped at the end.

    Raises ServerError when it does not start, or what its exit code says: a wrong model is a ConfigError.
    """
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "kvt_async.serve", "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        output = process.stdout
        assert output is not None
        try:
            match = _LISTENING.search(output.readline())
            if match is None:
                error = _ERRORS.get(process.wait(READY_S), ServerError)
                log.seek(0)
                raise error(
                    "the reference server did not start",
                    where=" ".join(command[1:]),
                    details=tuple(log.read().splitlines()[-5:]),
                )
            yield match.group(1)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.close()
