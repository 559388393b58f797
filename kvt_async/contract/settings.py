"""The typed config. Every key, its default, its bounds; how files, environment and overrides become one Settings is
in load.py. configs/default.yaml is the commented copy of these defaults (a test keeps them equal).

Owners: `analysis` and `check` belong to the analyzer, everything else to the runner.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SerializationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.checked_text import valid_headers
from kvt_async.contract.cluster_settings import Cluster
from kvt_async.contract.config_section import Count, PathText, Seconds, Section, Url, Written
from kvt_async.contract.cost_settings import Prices, Serving
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.secrets import Secrets
from kvt_async.contract.settings_kv import KV
from kvt_async.contract.timeouts import Timeouts
from kvt_async.contract.turn_settings import TurnSettings
from kvt_async.contract.vocabulary import ONE_TASK_SOURCES

PerMinute = Annotated[float, Field(ge=0.001, le=1e12)]
Seed = Annotated[int, Field(ge=0)]


DEFAULT_DATASET: Final = "longbench"
UNPUBLISHED_MAX_TOKENS: Final = 256


class Experiment(Section):
    exp_group_id: str = Field(
        "submission_longbench_narrativeqa_v1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120
    )


class Dataset(Section):
    """`task`: one name, or several in short (a list, a glob, `all`). Null: no task is named here."""

    name: str = Field(DEFAULT_DATASET, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    task: str | list[str] | None = "narrativeqa"
    path: PathText | None = None
    revision: str | None = None
    params: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _own_task(cls, given: Any) -> Any:
        """The default task is LongBench's: no other data set is called by it. A source of one task has its name."""
        if not isinstance(given, dict) or (name := given.get("name", DEFAULT_DATASET)) == DEFAULT_DATASET:
            return given
        own = name if name in ONE_TASK_SOURCES else None
        return given | {"task": own} if given.get("task") is None else given

    @property
    def task_key(self) -> str:
        """The one task of this data set. Raises ConfigError where none or several are named."""
        if isinstance(self.task, str):
            return self.task
        raise ConfigError(
            f"{self.name} needs the name of its task" if self.task is None else "this takes one task, not a list",
            where="dataset.task",
            do="Set dataset.task to your own label for the data."
            if self.name == "jsonl"
            else f"`kvt tasks {self.name}` lists them.",
        )


class TokenizerSettings(Section):
    name: PathText | None = None


class PromptSettings(Section):
    template: str | None = None
    system: str | None = None
    max_context_tokens: Count | None = None
    endpoint: Literal["chat", "completions"] = "chat"
    answer_prefix: Literal["turn"] | None = None  # turn: it begins the assistant's turn


class Binning(Section):
    n_bins: Annotated[int, Field(ge=1, le=1000)] = 5
    n_per_bin: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    edges: list[int] | None = None
    by: Literal["quantile", "asked_length"] | None = (
        None  # null: asked_length where the task's prompts have such lengths
    )

    @model_validator(mode="after")
    def _edges_rise(self) -> "Binning":
        if self.edges is not None and (
            len(self.edges) < 2 or any(b <= a for a, b in zip(self.edges, self.edges[1:], strict=False))
        ):
            raise ValueError("edges must be at least two token counts, rising")
        if self.edges is not None and self.by is not None:
            raise ValueError("edges and by exclude each other: leave one out")
        return self


class SamplingSettings(Section):
    strategy: Literal["shortest", "uniform", "focus_transition"] = "shortest"
    seed: int = 1337


class Model(Section):
    name: str = Field("${MODEL_NAME:-reference}", min_length=1)
    config: PathText | None = (
        None  # config.json of the model, or its directory: what a cached token takes, for the report
    )


class EngineSettings(Section):
    base_url: Url = "http://127.0.0.1:8000/v1"
    api_key_env: str = "OPENAI_API_KEY"
    headers: Annotated[dict[str, str], AfterValidator(valid_headers)] = {}
    stream: bool = True
    stream_usage: Literal["auto", "always", "never"] = "auto"
    loop: Literal["truth", "volume"] = "truth"
    transport: Literal["aiohttp", "lean"] = "aiohttp"
    ca_file: PathText | None = None
    warm_up: Literal["none", "prefill"] = "none"
    store_chunks: bool = True
    timeouts: Timeouts = Timeouts()

    @field_validator("base_url")
    @classmethod
    def _no_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")


class Decoding(Section):
    temperature: Annotated[float, Field(ge=0)] | None = 0  # null: none is sent, the server has its own
    max_tokens: Count | None = None  # null: the task's own published number (kvt_async/data/tasks.py settles it)
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    samples: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    extra_body: dict[str, Any] = {}

    @property
    def most_tokens(self) -> int:
        """The most tokens of an answer: `max_tokens`, or what holds for a task without a number of its own."""
        return UNPUBLISHED_MAX_TOKENS if self.max_tokens is None else self.max_tokens


class Retry(Section):
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    max_elapsed_s: Seconds = 300
    initial_s: Seconds = 0.5
    max_wait_s: Seconds = 60


class Limits(Section):
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 8
    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = 1  # that share these bounds
    adaptive: bool = False
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    order: Literal["by_budget", "interleaved"] = "by_budget"
    grace_s: Annotated[float, Field(ge=0, le=365 * 86_400)] = 10
    retry: Retry = Retry()


class Output(Section):
    runs_dir: PathText = "runs"
    data_dir: PathText = "data"


class Db(Section):
    path: PathText = "auto"
    flush_interval_s: Annotated[float, Field(ge=0, le=10)] = 0.05


class Analysis(Section):
    seed: Seed = 1337
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    ci: Literal["auto", "wilson", "bootstrap"] = "auto"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    margin_kind: Literal["absolute", "relative"] = "absolute"  # relative: a share of what full cache scores
    guard: Annotated[float, Field(gt=0, lt=1)] = 0.15  # what no task of a suite may lose
    aggregate: Annotated[str, Field(pattern=r"^(mean|(pass|majority)@[1-9][0-9]{0,3})$")] = "mean"  # of k answers
    drop_threshold: Annotated[float, Field(gt=0, le=1)] = 0.1
    # Of a suite: those that the verdict is over; None: all that are stored.
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    metric: str | None = None  # scores the stored answers in place of the task's own
    allow_drift: bool = False  # analyse although the server became another one meanwhile
    charts: bool = True  # False: tables and sentences alone, seconds sooner
    prices: Prices | None = None
    serving: Serving | None = None


class TaskEntry(Section):
    """One entry of `tasks`: what it gives lies over the sections of the same names, and the rest is theirs.

    Of its sections, `model_fields_set` says which keys were given; only these are written out.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)] | None = None
    dataset: Dataset | None = None
    prompt: PromptSettings | None = None
    binning: Binning | None = None
    sampling: SamplingSettings | None = None
    decoding: Decoding | None = None
    check: list[Assertion] = []

    @model_serializer(mode="plain")
    def _what_was_given(self, info: SerializationInfo) -> dict[str, Any]:
        return {
            key: _given(getattr(self, key), info.mode) for key in TaskEntry.model_fields if key in self.model_fields_set
        }


def _given(value: Any, mode: str) -> Any:
    if isinstance(value, list):
        return [_given(item, mode) for item in value]
    return value.model_dump(mode=mode, exclude_unset=True) if isinstance(value, Section) else value


class PluginFile(Section):
    """A Python file of the user's own; `sha256`: only if its content has that. In a stored config also what was of an
    installed `package`: a record, from which nothing is loaded."""

    path: PathText
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    package: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given


class Settings(BaseSettings):
    """The whole config. Built by contract.load.load_settings; never from the environment directly."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="KVT__", env_nested_delimiter="__", protected_namespaces=()
    )

    experiment: Experiment = Experiment()
    dataset: Dataset = Dataset()
    tasks: list[TaskEntry] = []
    tokenizer: TokenizerSettings = TokenizerSettings()
    prompt: PromptSettings = PromptSettings()
    binning: Binning = Binning()
    sampling: SamplingSettings = SamplingSettings()
    model: Model = Model()
    engine: EngineSettings = EngineSettings()
    kv: KV = KV()
    decoding: Decoding = Decoding()
    workload: TurnSettings = TurnSettings()
    limits: Limits = Limits()
    output: Output = Output()
    db: Db = Db()
    cluster: Cluster | None = None  # null: this machine sends everything itself
    bench: Bench = Bench()
    analysis: Analysis = Analysis()
    check: list[Assertion] = []
    plugins: list[PluginFile] = []
    _secrets: Secrets = PrivateAttr(default_factory=Secrets)
    _written: Written = PrivateAttr(default_factory=Written)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is built of: contract.load reads the environment, where a list need not be JSON."""
        return (init_settings,)

    @field_validator("check", "tasks", "plugins", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return [] if value is None else value

    @model_validator(mode="after")
    def _enough_answers(self) -> "Settings":
        needed = int(self.analysis.aggregate.partition("@")[2] or 1)
        own = [task.decoding for task in self.tasks if task.decoding and "samples" in task.decoding.model_fields_set]
        shared = [] if self.tasks and len(own) == len(self.tasks) else [self.decoding]
        if needed > (fewest := min(decoding.samples for decoding in (*own, *shared))):
            aggregate = self.analysis.aggregate
            raise ValueError(f"analysis.aggregate {aggregate} needs decoding.samples {needed} or more, it is {fewest}")
        return self

    @property
    def secrets(self) -> Secrets:
        """The values that came from where only secrets come from. A copy of the settings has them too."""
        return self._secrets

    @property
    def written(self) -> dict[str, Any]:
        """The merged config with its variables as they were written: `${VAR}`. Empty where it came from no file."""
        return self._written

    def with_secrets(self, secrets: Secrets, written: dict[str, Any] | None = None) -> "Settings":
        """The same settings, which know these secrets, and what they were `written` as."""
        copy = self.model_copy()
        copy._secrets = secrets
        copy._written = self._written if written is None else Written(written)
        return copy
