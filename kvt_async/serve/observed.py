"""What the server counts about itself, as one /metrics page."""

from itertools import pairwise

from kvt_async.serve.backend import Backend
from kvt_async.serve.prometheus import E2E_BUCKETS, ITL_BUCKETS, TTFT_BUCKETS, Counter, Family, Histogram, Reading, page
from kvt_async.serve.work import Finished, Usage
from kvt_async.serve.worker import Job, ModelThread


class ServerMetrics:
    """Filled by the request handlers; reads the engine's and the queue's own numbers when asked for the page."""

    def __init__(self, engine: Backend, thread: ModelThread) -> None:
        labels = {"model_name": engine.about.model_name, "engine": "0"}
        store, token_bytes = engine.store, engine.about.token_bytes
        self.prompt_tokens = Counter("vllm:prompt_tokens_total", "Prompt tokens of finished requests.", labels)
        self.generation_tokens = Counter("vllm:generation_tokens_total", "Generated tokens.", labels)
        self.success = Counter(
            "vllm:request_success_total", "Finished requests by finish reason.", labels, "finished_reason"
        )
        self.ttft = Histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", labels, TTFT_BUCKETS)
        self.itl = Histogram("vllm:inter_token_latency_seconds", "Gaps between tokens.", labels, ITL_BUCKETS)
        self.e2e = Histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", labels, E2E_BUCKETS)
        self.queue_time = Histogram("vllm:request_queue_time_seconds", "Wait for the model.", labels, E2E_BUCKETS)
        self.prefill_time = Histogram(
            "vllm:request_prefill_time_seconds",
            "Reading the prompt and evicting, or finding it read.",
            labels,
            E2E_BUCKETS,
        )
        self.decode_time = Histogram("vllm:request_decode_time_seconds", "Generating.", labels, E2E_BUCKETS)
        self.errors = Counter("kvt:request_errors_total", "Refused or failed requests by status.", labels, "status")
        self.cancelled = Counter("kvt:requests_cancelled_total", "Requests whose client went away.", labels)
        self.kept = Counter("kvt:kv_kept_tokens_total", "Prompt entries kept, by policy.", labels, "policy")
        self.compressible = Counter(
            "kvt:kv_compressible_tokens_total", "Prompt entries that could be evicted, by policy.", labels, "policy"
        )
        self.compressions = Counter(
            "kvt:kv_compressions_total", "Compressions while generating, by policy.", labels, "policy"
        )
        cache_config = labels | {
            "block_size": str(store.block or 1),
            "cache_dtype": engine.about.cache_dtype,
            "enable_prefix_caching": str(store.limit_bytes > 0),
            "num_gpu_blocks": "0",
            "num_cpu_blocks": str(store.limit_bytes // token_bytes),
            "bytes_per_token": str(token_bytes),
        }
        self._families: tuple[Family, ...] = (
            Reading("vllm:num_requests_running", "Requests the model works on.", labels, lambda: thread.running),
            Reading("vllm:num_requests_waiting", "Requests that wait for the model.", labels, lambda: thread.waiting),
            Reading(
                "vllm:kv_cache_usage_perc",
                "Share of the prefill cache in use, 0 to 1.",
                labels,
                lambda: store.used_bytes / store.limit_bytes if store.limit_bytes else 0.0,
            ),
            Reading(
                "vllm:prefix_cache_queries_total",
                "Prompt tokens looked up in the prefill cache.",
                labels,
                lambda: store.queried_tokens,
                "counter",
            ),
            Reading(
                "vllm:prefix_cache_hits_total",
                "Prompt tokens found there: whole prompts or, with --prefix-block, beginnings.",
                labels,
                lambda: store.hit_tokens,
                "counter",
            ),
            Reading(
                "vllm:num_preemptions_total",
                "Requests that were preempted: none ever is.",
                labels,
                lambda: 0.0,
                "counter",
            ),
            Reading("vllm:cache_config_info", "Cache settings, as labels.", cache_config, lambda: 1.0),
            Reading("kvt:prefill_cache_bytes", "Bytes of kept prefills.", labels, lambda: store.used_bytes),
            Reading("kvt:prefill_cache_limit_bytes", "Their bound.", labels, lambda: store.limit_bytes),
            Reading(
                "kvt:model_busy_seconds_total", "Time the model has worked.", labels, lambda: thread.busy_s, "counter"
            ),
            self.prompt_tokens,
            self.generation_tokens,
            self.success,
            self.ttft,
            self.itl,
            self.e2e,
            self.queue_time,
            self.prefill_time,
            self.decode_time,
            self.errors,
            self.cancelled,
            self.kept,
            self.compressible,
            self.compressions,
        )

    def page(self) -> str:
        return page(self._families)

    def finished(self, job: Job, end: Finished, token_times: list[float]) -> None:
        """Count one completed request; `token_times` are those of its text pieces."""
        usage: Usage = end.usage
        self.prompt_tokens.add(usage.prompt_tokens)
        self.generation_tokens.add(usage.completion_tokens)
        self.success.add(label=end.reason)
        self.kept.add(usage.kept_tokens, usage.policy)
        self.compressible.add(usage.compressible_tokens, usage.policy)
        if usage.when != "prefill":
            self.compressions.add(usage.held.n_compressions, usage.policy)
        self.queue_time.observe(end.started_at - job.submitted_at)
        self.prefill_time.observe(end.prefilled_at - end.started_at)
        self.decode_time.observe(end.at - end.prefilled_at)
        self.e2e.observe(end.at - job.submitted_at)
        if token_times:
            self.ttft.observe(token_times[0] - job.submitted_at)
            for earlier, later in pairwise(token_times):
                self.itl.observe(later - earlier)
