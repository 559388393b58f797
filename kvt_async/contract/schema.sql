-- kvt's database: the only thing runner and analyzer share at run time. This file is its documentation.
--
-- FACTS are written by kvt_async, once: triggers refuse UPDATE, DELETE and re-INSERT of an existing key (which closes
-- the REPLACE route, since REPLACE skips delete triggers unless recursive_triggers is on). DERIVED tables are written
-- by the analyzer, carry the fingerprint of what they came from, and can be dropped and rebuilt.
-- Times of day (*_at) are UTC, ISO 8601, for people; no duration is computed from them. *_ns are one process's
-- monotonic clock in nanoseconds: only differences within a row mean anything. *_s are seconds. NULL means "not known".
--
-- What these columns hold is said here, once for all tables:
--   exp_group_id               the experiment group
--   generation                 which of its contracts: with exp_group_id a row of experiments
--   *_id                       key of the table of that name
--   series, series_*           label of a series
--   kv_budget                  budget as asked, in the kv_unit of its run
--   dataset_id                 a task's examples as they were chosen; in derived tables the task
--   bin_idx                    length bin, 0 = shortest; in derived tables -1 = all bins
--   series_idx                 which series of tries of a request
--   attempt_idx                which try of a request, over all its series
--   endpoint                   a URL, credentials removed
--   *_sha256                   SHA-256 of the text or file that the name begins with
--   *p50*, *p90*, *p95*, *p99* percentiles
--   *_ci_low, *_ci_high        interval of the figure before them; 95% unless analysis.alpha says otherwise
--   fingerprint                SHA-256 of what a derived row was computed from
--
-- Schema version 1: sweeps: what was asked, what happened, what follows from it.
-- Schema version 2: benches (the tables bench_* and server_samples); nothing of version 1 changed.
-- Schema version 3: several tasks in a group, several answers and turns of an example, tool calls, shards. A level has a
--   run for each task; snapshots, probes and samples are numbered within their session. `kvt upgrade` copies older facts.

-- ============================================================ FACTS: what was asked

CREATE TABLE IF NOT EXISTS experiments (        -- one row per generation of an experiment group
    exp_group_id    TEXT NOT NULL,
    generation      INTEGER NOT NULL,           -- 1, 2, ...: --force under a changed contract starts the next one
    created_at      TEXT NOT NULL,
    contract_json   TEXT NOT NULL,              -- what all its tasks share: the model
    contract_sha256 TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation)
) STRICT;

CREATE TABLE IF NOT EXISTS task_contracts (     -- one row per task of a generation; a group of one task has one
    exp_group_id    TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    task            TEXT NOT NULL,              -- its name in the group: tasks[].name, else dataset.task
    dataset_id      TEXT NOT NULL REFERENCES datasets,
    contract_json   TEXT NOT NULL,              -- dataset, selection, tokenizer, template, decoding
    contract_sha256 TEXT NOT NULL,
    look            INTEGER NOT NULL,           -- 1; one more each time a task was added after an analysis
    created_at      TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, task),
    UNIQUE (exp_group_id, generation, dataset_id),
    FOREIGN KEY (exp_group_id, generation) REFERENCES experiments
) STRICT;

CREATE TABLE IF NOT EXISTS sample_plans (       -- answers asked of each example of a task; the largest number holds
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    dataset_id   TEXT NOT NULL REFERENCES datasets,
    samples      INTEGER NOT NULL,              -- 1, 2, ...: decoding.samples
    session_id   TEXT NOT NULL REFERENCES sessions, -- that asked for so many first
    created_at   TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, dataset_id, samples)
) STRICT;

CREATE TABLE IF NOT EXISTS sessions (           -- one row per invocation that writes facts
    session_id    TEXT PRIMARY KEY,
    exp_group_id  TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    started_at    TEXT NOT NULL,
    command       TEXT NOT NULL,                -- arguments as typed, secrets redacted
    config_yaml   TEXT NOT NULL,                -- the merged config, secrets redacted
    config_sha256 TEXT NOT NULL,
    kvt_version   TEXT NOT NULL,                -- of the program
    git_commit    TEXT,                         -- of the working directory, where it is a checkout
    python        TEXT NOT NULL,                -- its version
    platform      TEXT NOT NULL,                -- operating system and machine
    engine_loop   TEXT,                         -- truth (asyncio) | volume (uvloop); '+lean': engine.transport lean
    concurrency   INTEGER,                      -- the bound on requests in flight
    order_seed    INTEGER,                      -- seed of an interleaved order
    shard_i       INTEGER,                      -- 1 .. shard_n: the part of the entries that it sends; NULL: all
    shard_n       INTEGER,                      -- number of parts; NULL: it is not in parts
    host          TEXT,                         -- name of the machine
    notes_json    TEXT                          -- list of sentences about its tasks: what was left out, what is not
                                                --   as the task is published; NULL: nothing to say
) STRICT;

CREATE TABLE IF NOT EXISTS session_ends (       -- a session without a row here was killed
    session_id TEXT PRIMARY KEY REFERENCES sessions,
    ended_at   TEXT NOT NULL,
    exit_code  INTEGER NOT NULL,                -- 0..5 or 130
    reason     TEXT NOT NULL                    -- finished | interrupted | server | failures | refused | local | bug
) STRICT;

CREATE TABLE IF NOT EXISTS datasets (           -- what was sampled, counted and asked
    dataset_id       TEXT PRIMARY KEY,
    name             TEXT NOT NULL,             -- longbench | longbench_e | ruler | kvtext | jsonl | a plugin's
    task             TEXT NOT NULL,             -- exact, case-sensitive
    tokenizer_name   TEXT NOT NULL,             -- as resolved
    tokenizer_sha256 TEXT NOT NULL,
    source_revision  TEXT,                      -- pinned revision or SHA-256 of the source file
    metric           TEXT NOT NULL,             -- name in the analyzer's registry of the task's own metric
    prompt_json      TEXT NOT NULL,             -- template, system, endpoint, max_context_tokens, as used
    selection_json   TEXT NOT NULL              -- the selection rule: bins, strategy, seed, source parameters
) STRICT;

CREATE TABLE IF NOT EXISTS manifests (          -- a manifest only grows; each version is recorded
    dataset_id TEXT NOT NULL REFERENCES datasets,
    version    INTEGER NOT NULL,                -- 1, 2, ...
    sha256     TEXT NOT NULL,                   -- of manifest.json's content
    created_at TEXT NOT NULL,
    n_entries  INTEGER NOT NULL,                -- entries in total at this version
    PRIMARY KEY (dataset_id, version)
) STRICT;

CREATE TABLE IF NOT EXISTS examples (           -- canonical examples, as sent
    dataset_id     TEXT NOT NULL REFERENCES datasets,
    example_id     TEXT NOT NULL,               -- the given id, else a content hash
    question       TEXT NOT NULL,               -- without the context
    context        TEXT NOT NULL,               -- as sent: already cut where it was over prompt.max_context_tokens
    answers_json   TEXT NOT NULL,               -- list of accepted answers; may be empty
    meta_json      TEXT NOT NULL,               -- the source's own fields; `turns` = earlier chat turns [[q, a], ...]
    context_sha256 TEXT NOT NULL,               -- examples with one context form one statistical cluster
    PRIMARY KEY (dataset_id, example_id)
) STRICT;

CREATE TABLE IF NOT EXISTS bins (               -- length bins of a dataset; an empty one still has its row
    dataset_id TEXT NOT NULL REFERENCES datasets,
    bin_idx    INTEGER NOT NULL,                -- 0 = shortest
    lo_tokens  INTEGER NOT NULL,                -- inclusive
    hi_tokens  INTEGER NOT NULL,                -- inclusive
    PRIMARY KEY (dataset_id, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS manifest_entries (   -- what is sent at every level
    dataset_id       TEXT NOT NULL,
    example_id       TEXT NOT NULL,
    seq              INTEGER NOT NULL,          -- 0, 1, ... in manifest order; new entries go to the end
    version          INTEGER NOT NULL,          -- the manifest version that brought the entry
    bin_idx          INTEGER NOT NULL,
    token_len        INTEGER NOT NULL,          -- tokens of the rendered prompt, chat template included
    context_tokens   INTEGER NOT NULL,          -- tokens of the context alone, as sent
    original_tokens  INTEGER NOT NULL,          -- tokens of the rendered prompt before cutting; = token_len if not cut
    prompt_truncated INTEGER NOT NULL,          -- 1: context was cut in the middle to prompt.max_context_tokens
    prompt_sha256    TEXT NOT NULL,             -- of the rendered messages
    PRIMARY KEY (dataset_id, example_id),
    UNIQUE (dataset_id, seq),
    FOREIGN KEY (dataset_id, example_id) REFERENCES examples,
    FOREIGN KEY (dataset_id, bin_idx) REFERENCES bins
) STRICT;

CREATE TABLE IF NOT EXISTS runs (               -- one task at one level (a series at one budget) and repeat
    run_id                  TEXT PRIMARY KEY,
    exp_group_id            TEXT NOT NULL,
    generation              INTEGER NOT NULL,
    dataset_id              TEXT NOT NULL REFERENCES datasets,
    model_name              TEXT NOT NULL,      -- asked for
    base_url                TEXT NOT NULL,      -- at creation, credentials removed; attempts.endpoint says who served
    engine_name             TEXT NOT NULL,      -- what the server calls itself, or openai-compatible
    series                  TEXT NOT NULL,      -- unique label of policy, mode and params; 'full' for full cache
    kv_policy               TEXT NOT NULL,      -- as the server names it; kvt's own: full, truncate_prompt
    kv_budget               REAL NOT NULL,      -- in kv_unit; 1.0 of fraction = full cache
    kv_unit                 TEXT NOT NULL,      -- fraction (of the compressible prompt kept) | tokens | bits
    kv_mode                 TEXT NOT NULL,      -- question_aware | question_agnostic
    kv_when                 TEXT NOT NULL,      -- prefill | decode | both: when the policy evicts
    is_full                 INTEGER NOT NULL,   -- 1: the baseline of every series; 0 of series 'constrained full'
    kv_apply                TEXT NOT NULL,      -- body | endpoint | launch | none
    kv_params_json          TEXT NOT NULL,      -- free parameters of the level
    apply_json              TEXT NOT NULL,      -- kv.apply and kv.evidence as configured: part of the level's identity
    repeat_idx              INTEGER NOT NULL,   -- 0; 1, 2, ... = A/A repeats of full cache
    prompt_template_version TEXT NOT NULL,      -- SHA-256 of template, system text and endpoint
    decoding_json           TEXT NOT NULL,      -- temperature, max_tokens, ... as sent
    level_idx               INTEGER NOT NULL,   -- order in the config that created it
    created_at              TEXT NOT NULL,
    FOREIGN KEY (exp_group_id, generation) REFERENCES experiments,
    UNIQUE (exp_group_id, generation, dataset_id, series, kv_budget, kv_unit, repeat_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS requests (           -- one per (run, example, answer); exists from when it is queued
    request_id    TEXT PRIMARY KEY,             -- run_id : seq, .sample where it isn't 0, .sample.turn of later turns
    run_id        TEXT NOT NULL REFERENCES runs,
    example_id    TEXT NOT NULL,
    sample_idx    INTEGER NOT NULL,             -- 0, 1, ...: which of decoding.samples answers to one prompt
    turn_idx      INTEGER NOT NULL,             -- 0, 1, ...: which turn of a conversation
    prompt_sha256 TEXT NOT NULL,                -- of the messages as sent (truncate_prompt sends shorter ones, own
                                                --   history other ones); '': first failed unsent, earlier_turn_failed
    created_at    TEXT NOT NULL,
    UNIQUE (run_id, example_id, sample_idx, turn_idx)
) STRICT;

-- ============================================================ FACTS: what happened

CREATE TABLE IF NOT EXISTS try_series (         -- --retry-failed opens series 1, 2, ...; series 0 is implicit
    request_id TEXT NOT NULL REFERENCES requests,
    series_idx INTEGER NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions,
    created_at TEXT NOT NULL,
    PRIMARY KEY (request_id, series_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS attempts (           -- one HTTP try; a retry is a new row, so no latency hides a wait
    request_id    TEXT NOT NULL REFERENCES requests,
    attempt_idx   INTEGER NOT NULL,             -- 0, 1, 2, ... in the order sent, over all series
    series_idx    INTEGER NOT NULL,
    session_id    TEXT NOT NULL REFERENCES sessions,
    started_at    TEXT NOT NULL,
    endpoint      TEXT NOT NULL,                -- base URL that served it, credentials removed
    http_status   INTEGER,                      -- NULL: no status line arrived
    end_state     TEXT NOT NULL,                -- EndState: how it ended on the wire
    error_type    TEXT,                         -- ErrorType; NULL: this try gave the response
    error_message TEXT,                         -- first 200 bytes of evidence, secrets redacted
    partial_text  TEXT,                         -- text received before a failure
    retry_after_s REAL,                         -- what the server asked us to wait
    latency_s     REAL NOT NULL,                -- the whole try: start to last byte, or to the failure
    PRIMARY KEY (request_id, attempt_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS responses (          -- the one successful attempt of a request
    request_id       TEXT PRIMARY KEY REFERENCES requests,
    attempt_idx      INTEGER NOT NULL,
    text             TEXT NOT NULL,             -- content deltas joined; may be empty
    reasoning        TEXT,                      -- reasoning deltas joined, under all their names; never scored
    tool_calls_json  TEXT,                      -- [{name, arguments, id}, ...], arguments as sent; NULL: none
    finish_reason    TEXT,                      -- the word that ended it; NULL: only [DONE], or a whole body, did
    usage_json       TEXT,                      -- the server's usage object as sent, llama.cpp's counts of drafted
                                                --   tokens in it under `timings`; NULL: none came
    kv_evidence_json TEXT,                      -- {requested, effective, unit, source, ...}; of levels that evict while
                                                --   they answer also n_compressions, kept_tokens, peak_tokens, when
    kv_effective     REAL,                      -- effective budget in the run's kv_unit; NULL: nothing shows it
    cache_state      TEXT,                      -- cold | warm | mixed: where the prompt came from; NULL: not known
    created_at       TEXT NOT NULL,
    FOREIGN KEY (request_id, attempt_idx) REFERENCES attempts
) STRICT;

CREATE TABLE IF NOT EXISTS telemetry (          -- marks of one attempt: monotonic ns; NULL: it didn't happen
    request_id           TEXT NOT NULL,
    attempt_idx          INTEGER NOT NULL,
    intended_ns          INTEGER,               -- open loop: when the schedule wanted it sent
    scheduled_ns         INTEGER,               -- the producer made it
    dequeued_ns          INTEGER,               -- a worker took it
    limits_ns            INTEGER,               -- rate limits and slot passed
    conn_ready_ns        INTEGER,               -- a connection was ready
    conn_reused          INTEGER,               -- 1: from the pool
    start_ns             INTEGER,               -- START of every latency: write of the request's first byte
    headers_sent_ns      INTEGER,
    body_sent_ns         INTEGER,
    status_ns            INTEGER,               -- status line and headers parsed
    first_byte_ns        INTEGER,               -- first body byte
    first_event_ns       INTEGER,               -- first complete SSE event
    first_reasoning_ns   INTEGER,               -- first non-empty reasoning delta
    first_content_ns     INTEGER,               -- first non-empty content delta
    first_tool_ns        INTEGER,               -- first tool-call or function-call delta
    last_delta_ns        INTEGER,               -- last non-empty delta: text, reasoning, tool call
    finish_ns            INTEGER,               -- chunk with a finish_reason that ends a reply
    usage_ns             INTEGER,               -- chunk with usage
    done_ns              INTEGER,               -- [DONE]
    end_ns               INTEGER,               -- reply closed, or failure noticed
    stamp_source         TEXT NOT NULL,         -- user | transport | kernel: who stamped arrivals
    first_byte_kernel_ns INTEGER,               -- kernel receive stamp of the first body byte, on our clock
    first_text_kernel_ns INTEGER,               -- kernel receive stamp of the first output, on our clock
    first_text_coalesced INTEGER,               -- 1: its read held more output events: its stamp is an upper bound
    n_events             INTEGER,               -- complete SSE events
    n_text_chunks        INTEGER,               -- non-empty deltas: text, reasoning, tool calls
    bytes_received       INTEGER,               -- of the whole reply, head included
    chunks               BLOB,                  -- arrivals and lengths of text chunks: formulas/chunk_encoding.py
    prompt_tokens        INTEGER,               -- from usage
    completion_tokens    INTEGER,               -- from usage, reasoning included; NULL: unknown, or belied by the reply
    cached_tokens        INTEGER,               -- from usage: prompt tokens served from a prefix cache
    PRIMARY KEY (request_id, attempt_idx),
    FOREIGN KEY (request_id, attempt_idx) REFERENCES attempts
) STRICT;

CREATE TABLE IF NOT EXISTS give_ups (           -- tries exhausted, or an error that no retry helps
    request_id TEXT NOT NULL REFERENCES requests,
    series_idx INTEGER NOT NULL,
    reason     TEXT NOT NULL,                   -- not_retryable | attempts_exhausted | time_exhausted |
                                                --   retry_after_too_long | earlier_turn_failed (nothing was sent)
    created_at TEXT NOT NULL,
    PRIMARY KEY (request_id, series_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS server_snapshots (   -- who served: at a session's start and end
    session_id    TEXT NOT NULL REFERENCES sessions,
    n             INTEGER NOT NULL,             -- 0, 1, ... of its session
    run_id        TEXT REFERENCES runs,         -- launch: the level it served; else NULL
    taken_at      TEXT NOT NULL,
    phase         TEXT NOT NULL,                -- start | end
    endpoint      TEXT NOT NULL,
    identity_json TEXT NOT NULL,                -- models, version, Server header, cache config, counters
    PRIMARY KEY (session_id, n)
) STRICT;

CREATE TABLE IF NOT EXISTS probes (             -- canary requests and warm-ups: never mixed with requests
    session_id    TEXT NOT NULL REFERENCES sessions,
    n             INTEGER NOT NULL,             -- 0, 1, ... of its session
    kind          TEXT NOT NULL,                -- canary | warm_up | health
    level         TEXT NOT NULL,                -- what was asked, e.g. 'full', 'snapkv/aware 0.05'
    prompt_sha256 TEXT NOT NULL,                -- of the rendered messages
    answer        TEXT,                         -- its text; NULL: it failed
    verdict       TEXT,                         -- of the whole canary, on its last row: alive | dead | inconclusive
    detail_json   TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    PRIMARY KEY (session_id, n)
) STRICT;

CREATE TABLE IF NOT EXISTS client_health (      -- was it the server or the client?
    session_id      TEXT NOT NULL REFERENCES sessions,
    created_at      TEXT NOT NULL,
    verdict         TEXT NOT NULL,              -- client-clean | CLIENT-BOUND
    error_bound_ms  REAL NOT NULL,              -- measured bound on the error of a latency figure
    signal          TEXT NOT NULL,              -- which measurement gave verdict and bound
    loop_lag_p50_ms REAL NOT NULL,              -- the event loop woke late by so much: median
    loop_lag_p99_ms REAL NOT NULL,              -- 99th percentile
    loop_lag_max_ms REAL NOT NULL,              -- worst
    send_lag_p99_ms REAL,                       -- permit granted to first byte written
    cpu_share       REAL NOT NULL,              -- of one core, while requests were in flight
    gc_pause_max_ms REAL NOT NULL,              -- worst garbage-collection pause
    detail_json     TEXT NOT NULL,              -- with `live`: so far, written every few seconds while the session sends
    PRIMARY KEY (session_id, created_at)
) STRICT;

CREATE TABLE IF NOT EXISTS merges (             -- databases whose facts were taken in, as they were then: `kvt merge`
    source       TEXT NOT NULL,                 -- name of the database: 2-of-4.sqlite is a shard
    source_state TEXT NOT NULL,                 -- {table: its last rowid}, and its last session, when it was taken in
    merged_at    TEXT NOT NULL,
    n_requests   INTEGER NOT NULL,              -- requests that it has
    n_new        INTEGER NOT NULL,              -- of them, requests that were not here
    n_equal      INTEGER NOT NULL,              -- of them, here already with the same history
    n_continued  INTEGER NOT NULL,              -- of them, here already up to a point: the rest of their history was
                                                --   added
    n_replaced   INTEGER NOT NULL,              -- of them, taken in place of a history that was here, which is gone
    n_left       INTEGER NOT NULL,              -- of them, not taken: the history that was here holds
    PRIMARY KEY (source, source_state)
) STRICT;

-- ============================================================ FACTS: bench (since schema version 2)
-- A stage of `kvt bench` is a row of `runs`: one load at one level and repeat. What is below is about such runs only.

CREATE TABLE IF NOT EXISTS bench_stages (       -- what a stage was to do; written before anything of it is sent
    run_id           TEXT PRIMARY KEY REFERENCES runs, -- runs.repeat_idx is the stage's repeat
    stage_idx        INTEGER NOT NULL,          -- 0, 1, ... in the order the group's stages were planned
    purpose          TEXT NOT NULL,             -- single | list | auto | search: who chose this load
    load             TEXT NOT NULL,             -- 'rate 4/s', 'concurrency 16': equal over repeats and levels
    level            TEXT,                      -- 'full', 'snapkv/aware 0.5'; NULL: levels are not benched
    loop             TEXT NOT NULL,             -- open: sent by a schedule | closed: sent when a slot is free
    arrival          TEXT,                      -- open: constant | poisson | gamma
    rate_per_s       REAL,                      -- open: requests per second, planned
    burstiness       REAL,                      -- gamma: shape; 1 = poisson, below 1 burstier; else NULL
    concurrency      INTEGER,                   -- closed: requests in flight
    max_in_flight    INTEGER,                   -- open: a cap that was asked for; NULL: none
    n_warm_up        INTEGER NOT NULL,          -- warm-up requests at the head of each window
    n_measured       INTEGER,                   -- measured requests; NULL: closed loop for duration_s, as many as go
    duration_s       REAL,                      -- length of the measured part; NULL: n_measured says it
    seed             INTEGER NOT NULL,          -- of arrivals and lengths
    salt             TEXT,                      -- head of every prompt's own salt; NULL: prompts are equal over stages
    workload_json    TEXT NOT NULL,             -- bench.workload as used: kind, lengths, prefixes, hash of its source
    slo_json         TEXT NOT NULL,             -- {ttft_p99_ms: 500, ...}; {}: none
    calibration_json TEXT,                      -- the client's ceilings as known then: bench/client_ceiling.py
    plan_json        TEXT NOT NULL,             -- the rest of the plan: stop rules, body, transport, share of ceiling
    created_at       TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS bench_arrivals (     -- the schedule, made from the seed and stored before it is sent
    request_id    TEXT PRIMARY KEY REFERENCES requests, -- its number is its place in the schedule
    session_id    TEXT NOT NULL REFERENCES sessions, -- who planned it: each window brings warm-up requests of its own
    phase         TEXT NOT NULL,                -- warm_up | measured: only measured requests have metrics
    offset_ns     INTEGER,                      -- open: when to send, from the stage's start; NULL in closed loop, and
                                                --   of a conversation's later turns
    input_tokens  INTEGER NOT NULL,             -- of the prompt, by our tokenizer, chat template included if any; 0: of
                                                --   a turn that never came about
    output_tokens INTEGER NOT NULL,             -- asked for: max_tokens
    group_idx     INTEGER                       -- shared-prefix group; NULL: no prefix shared
) STRICT;

CREATE TABLE IF NOT EXISTS bench_requests (     -- what else is planned of a request: of a trace, a conversation, a model
    request_id       TEXT PRIMARY KEY REFERENCES requests,
    conversation_idx INTEGER,                   -- which conversation of the stage; NULL: it belongs to none
    turn_idx         INTEGER,                   -- 0, 1, ... of its conversation; NULL: it belongs to none
    think_ns         INTEGER,                   -- planned wait after the end of the turn before; NULL: none
    model            TEXT,                      -- asked of this request; NULL: model.name
    source_line      INTEGER,                   -- of the trace or file, from 1; NULL: it has no line
    shared_tokens    INTEGER,                   -- of the prompt, as its source says: begun alike by an earlier one;
                                                --   NULL: the source doesn't say
    example_id       TEXT                       -- of the manifest whose prompt this is; NULL: it is of none
) STRICT;

CREATE TABLE IF NOT EXISTS bench_windows (      -- a session began to work on a stage; a resumed stage has several
    run_id     TEXT NOT NULL REFERENCES runs,
    session_id TEXT NOT NULL REFERENCES sessions, -- its monotonic clock is the one of all *_ns
    window_idx INTEGER NOT NULL,                -- 0, 1, ... of this stage
    start_ns   INTEGER NOT NULL,                -- the stage's start: offset 0 of the schedule
    started_at TEXT NOT NULL,                   -- the same instant, UTC
    n_planned  INTEGER,                         -- measured requests left to send; NULL: as many as go in duration_s
    duration_s REAL,                            -- what was left of it, where a duration was asked
    PRIMARY KEY (run_id, session_id)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_window_ends (  -- a window without a row here was killed: its last outcome is its end
    run_id           TEXT NOT NULL,
    session_id       TEXT NOT NULL,
    measured_from_ns INTEGER,                   -- steady state: first measured request due (open) or started (closed);
                                                --   NULL: none
    measured_to_ns   INTEGER,                   -- last measured request due (open), or the first slot left empty after
                                                --   it (closed)
    drained_ns       INTEGER NOT NULL,          -- the last request of the window had ended
    n_sent           INTEGER NOT NULL,          -- requests started, warm-up included
    n_measured       INTEGER NOT NULL,          -- of them, measured
    n_late           INTEGER NOT NULL,          -- open: started more than bench.late_ms after they were due
    late_max_ms      REAL NOT NULL,             -- open: the latest start; 0 in closed loop
    n_held           INTEGER NOT NULL,          -- open: had to wait because max_in_flight bound
    peak_in_flight   INTEGER NOT NULL,          -- most requests in flight at once
    reason           TEXT NOT NULL,             -- finished | interrupted | server | stop_rule (the rest isn't owed) |
                                                --   local (this machine: a sender process died)
    stop_rule        TEXT,                      -- the rule that ended the ladder here, as a sentence; NULL: none
    client_json      TEXT NOT NULL,             -- client_health's columns for this window alone, verdict first;
                                                --   of several processes the worst, each under detail.processes
    ended_at         TEXT NOT NULL,
    PRIMARY KEY (run_id, session_id),
    FOREIGN KEY (run_id, session_id) REFERENCES bench_windows
) STRICT;

CREATE TABLE IF NOT EXISTS server_samples (     -- the server's own metrics page before, during and after a stage
    session_id   TEXT NOT NULL REFERENCES sessions,
    n            INTEGER NOT NULL,              -- 0, 1, ... of its session
    run_id       TEXT NOT NULL REFERENCES runs,
    phase        TEXT NOT NULL,                 -- before | during | after (drained)
    at_ns        INTEGER NOT NULL,              -- reply received, on the session's monotonic clock
    took_ms      REAL NOT NULL,                 -- the scrape itself
    taken_at     TEXT NOT NULL,
    endpoint     TEXT NOT NULL,                 -- URL of the page, credentials removed
    metrics_json TEXT,                          -- {name: number | {count, sum, buckets: {le: count}}}, during a stage
                                                --   known counters and gauges alone; NULL: failed
    error        TEXT,                          -- why the scrape failed; NULL: it didn't
    PRIMARY KEY (session_id, n)
) STRICT;

CREATE INDEX IF NOT EXISTS runs_by_group ON runs (exp_group_id, generation);
CREATE INDEX IF NOT EXISTS server_samples_by_run ON server_samples (run_id, session_id);

-- ============================================================ VIEWS: metrics and states, never stored

CREATE VIEW IF NOT EXISTS failures AS           -- requests given up, with no response and no newer try series
SELECT r.request_id, r.run_id, r.example_id,
       CASE WHEN g.reason <> 'earlier_turn_failed' THEN a.error_type END AS error_type, a.http_status, g.reason,
       (SELECT count(*) FROM attempts n WHERE n.request_id = r.request_id) AS n_attempts
FROM give_ups g
JOIN requests r ON r.request_id = g.request_id
LEFT JOIN attempts a ON a.request_id = g.request_id
     AND a.attempt_idx = (SELECT max(m.attempt_idx) FROM attempts m WHERE m.request_id = g.request_id)
WHERE NOT EXISTS (SELECT 1 FROM responses p WHERE p.request_id = g.request_id)
  AND g.series_idx = (SELECT max(h.series_idx) FROM give_ups h WHERE h.request_id = g.request_id)
  AND NOT EXISTS (SELECT 1 FROM try_series t WHERE t.request_id = g.request_id AND t.series_idx > g.series_idx);
--   error_type  of the last try; NULL: earlier_turn_failed, nothing was sent
--   n_attempts  tries in all

CREATE VIEW IF NOT EXISTS outcomes AS           -- one row a request: response | failure | pending
SELECT r.request_id, r.run_id, r.example_id, r.sample_idx, r.turn_idx, p.attempt_idx,
       CASE WHEN p.request_id IS NOT NULL THEN 'response'
            WHEN f.request_id IS NOT NULL THEN 'failure' ELSE 'pending' END AS state
FROM requests r
LEFT JOIN responses p ON p.request_id = r.request_id
LEFT JOIN failures f ON f.request_id = r.request_id;
--   attempt_idx  the try that gave the response; NULL: there is none
--   state        response | failure | pending

CREATE VIEW IF NOT EXISTS run_progress AS       -- planned = requests once all of them are queued
SELECT u.run_id, u.exp_group_id, u.generation, u.dataset_id, u.series, u.kv_budget, u.repeat_idx,
       (SELECT count(*) FROM manifest_entries e WHERE e.dataset_id = u.dataset_id) * ifnull(
           (SELECT max(s.samples) FROM sample_plans s WHERE s.exp_group_id = u.exp_group_id
            AND s.generation = u.generation AND s.dataset_id = u.dataset_id), 1) AS planned,
       (SELECT count(*) FROM requests r WHERE r.run_id = u.run_id) AS requests,
       (SELECT count(*) FROM responses p JOIN requests r ON r.request_id = p.request_id WHERE r.run_id = u.run_id)
           AS responses,
       (SELECT count(*) FROM failures f WHERE f.run_id = u.run_id) AS failures
FROM runs u;
--   planned    entries of the manifest, times the answers asked of each
--   requests   queued so far
--   responses  of them, answered
--   failures   of them, given up

CREATE VIEW IF NOT EXISTS attempt_metrics AS    -- docs/MEASUREMENT.md defines them; NULL: a mark is missing
SELECT t.request_id, t.attempt_idx,
       (ifnull(t.first_byte_kernel_ns, t.first_byte_ns) - t.start_ns) / 1e9 AS ttfb_s,
       (t.first_text_ns - t.start_ns) / 1e9 AS ttft_s,
       (t.first_content_ns - t.start_ns) / 1e9 AS ttft_content_s,
       (t.first_reasoning_ns - t.start_ns) / 1e9 AS ttft_reasoning_s,
       CASE WHEN t.completion_tokens > 1 AND t.last_delta_ns > t.first_text_user_ns THEN
           (t.last_delta_ns - t.first_text_user_ns) / 1e9 / nullif(max(t.streamed_tokens - 1, 0), 0) END AS tpot_s,
       (ifnull(t.last_delta_ns, t.end_ns) - t.start_ns) / 1e9 AS latency_s,
       (t.limits_ns - t.scheduled_ns) / 1e9 AS queue_wait_s,
       (t.conn_ready_ns - t.limits_ns) / 1e9 AS connect_s,
       (t.start_ns - t.intended_ns) / 1e9 AS send_lag_s,
       t.prompt_tokens, t.completion_tokens, t.cached_tokens, t.streamed_tokens, t.first_text_ns, t.first_text_user_ns
FROM (
    SELECT n.*, ifnull(n.first_text_kernel_ns, n.first_text_user_ns) AS first_text_ns,
           n.completion_tokens - CASE WHEN n.first_reasoning_ns IS NOT NULL THEN 0 ELSE ifnull(
               (SELECT CAST(coalesce(json_extract(p.usage_json, '$.completion_tokens_details.reasoning_tokens'),
                                     json_extract(p.usage_json, '$.output_tokens_details.reasoning_tokens'),
                                     json_extract(p.usage_json, '$.reasoning_tokens')) AS INTEGER)
                FROM responses p WHERE p.request_id = n.request_id AND p.attempt_idx = n.attempt_idx
                     AND instr(p.usage_json, 'reasoning_tokens')), 0) END AS streamed_tokens
    FROM (
        SELECT m.*, nullif(min(ifnull(m.first_content_ns, 9223372036854775807),
                               ifnull(m.first_reasoning_ns, 9223372036854775807),
                               ifnull(m.first_tool_ns, 9223372036854775807)), 9223372036854775807) AS first_text_user_ns
        FROM telemetry m
    ) n
) t;
--   ttfb_s              time to first byte of the body
--   ttft_s              time to first output
--   ttft_content_s      time to first text
--   ttft_reasoning_s    time to first reasoning
--   tpot_s              time per output token after the first
--   latency_s           time to last output
--   queue_wait_s        waited for limits and a slot
--   connect_s           waited for a connection
--   send_lag_s          open loop: sent later than planned
--   streamed_tokens     completion tokens that came as output
--   first_text_ns       instant that ttft_s ends at
--   first_text_user_ns  our own stamp of it
-- Output is text, reasoning and tool calls alike: it begins with the first delta of any kind and ends with the last.
-- streamed_tokens leaves out reasoning that was counted and never sent. tpot_s is NULL where all output came at once.
-- latency_s ends at the last output; a reply without any (empty, not streamed) ends at its end.
-- ttfb_s and ttft_s end at the kernel's receive stamp where there is one: it is never later than ours and does not wait
-- for a busy loop. tpot_s has both its ends from our own clock.

CREATE VIEW IF NOT EXISTS first_text AS         -- when an attempt's output began
SELECT request_id, attempt_idx, first_text_ns, first_text_user_ns FROM attempt_metrics;
-- first_text_ns is what a time to first token ends at; first_text_user_ns is our own stamp, for spans up to other
-- instants of our own clock, as tpot_s has them.

CREATE VIEW IF NOT EXISTS paired_scores AS      -- each scored answer at a level beside full cache's to the same example
SELECT u.exp_group_id, u.generation, ifnull(c.task, d.task) AS task, u.dataset_id, u.series, u.kv_budget, u.kv_unit,
       u.repeat_idx, e.bin_idx, r.example_id, r.sample_idx, r.turn_idx, r.request_id, q.request_id AS full_request_id,
       f.score AS score_full, s.score AS score_here, f.score - s.score AS lost
FROM runs u
JOIN runs b ON b.exp_group_id = u.exp_group_id AND b.generation = u.generation AND b.dataset_id = u.dataset_id
     AND b.is_full = 1 AND b.repeat_idx = 0 AND b.run_id <> u.run_id
JOIN requests r ON r.run_id = u.run_id
JOIN requests q ON q.run_id = b.run_id AND q.example_id = r.example_id AND q.sample_idx = r.sample_idx
     AND q.turn_idx = r.turn_idx
JOIN scores s ON s.request_id = r.request_id
JOIN scores f ON f.request_id = q.request_id
JOIN manifest_entries e ON e.dataset_id = u.dataset_id AND e.example_id = r.example_id
JOIN datasets d ON d.dataset_id = u.dataset_id
LEFT JOIN task_contracts c ON c.exp_group_id = u.exp_group_id AND c.generation = u.generation
     AND c.dataset_id = u.dataset_id;
--   task             its name in the group
--   full_request_id  full cache's request
--   score_full       of full cache's answer
--   score_here       of this answer
--   lost             score_full minus score_here
-- Series 'full' with a repeat_idx is the A/A control. Failures score 0. Pairs without both scores have no row.

CREATE VIEW IF NOT EXISTS verdicts AS           -- what is proven over all lengths: per series and task; '*': all tasks
SELECT v.exp_group_id, v.generation, ifnull(c.task, d.task) AS task, v.dataset_id, v.series, v.verdict, v.safe_budget,
       v.collapse_margin_budget AS broken_budget, v.n_needed, v.evidence, v.partial, v.verdict_text AS sentence
FROM transition_summary v
JOIN datasets d ON d.dataset_id = v.dataset_id
LEFT JOIN task_contracts c ON c.exp_group_id = v.exp_group_id AND c.generation = v.generation
     AND c.dataset_id = v.dataset_id
WHERE v.bin_idx = -1
UNION ALL
SELECT s.exp_group_id, s.generation, '*', NULL, s.series, s.verdict, s.suite_safe, s.broken_somewhere, s.n_needed,
       s.evidence, s.partial, s.verdict_text
FROM suite_summary s;
--   task           its name in the group; '*': all tasks together
--   dataset_id     the task's; NULL: all tasks
--   safe_budget    the smallest budget such that it and all above are proven safe
--   broken_budget  the largest budget such that it and all below are proven broken; '*': such that a task is
--   n_needed       examples, of each task, that would settle the first budget not proven safe
--   sentence       the verdict in a sentence

-- ============================================================ DERIVED: written by the analyzer, rebuilt at will

CREATE TABLE IF NOT EXISTS scores (             -- one row per finished request; a failure scores 0
    request_id     TEXT PRIMARY KEY REFERENCES requests,
    em             REAL NOT NULL,               -- exact match, 0 or 1
    f1             REAL NOT NULL,               -- token-overlap F1 in [0, 1]
    score          REAL NOT NULL,               -- by `metric`, in [0, 1]; its mean is "accuracy"
    metric         TEXT NOT NULL,               -- the task's own, unless the analysis asked for another one
    pred_norm      TEXT,                        -- normalised answer; NULL: no response
    gold_norm      TEXT,                        -- the normalised gold that scored best; NULL: no gold
    failure_label  TEXT,                        -- FailureLabel; NULL: a normal answer
    flags          TEXT NOT NULL,               -- comma-separated: repetition_loop, identical_to_full, prompt_truncated,
                                                --   call_unreadable | call_schema | call_name | call_arguments
    first_divergence INTEGER,                   -- how many characters its text begins with as full cache's answer
                                                --   does; NULL: the same text, full cache itself, nothing to compare
    scorer_version TEXT NOT NULL                -- of the scoring code
) STRICT;

CREATE TABLE IF NOT EXISTS bin_stats (          -- per run and bin; bin_idx -1 = equal-weight mean of the bins
    run_id                TEXT NOT NULL REFERENCES runs,
    dataset_id            TEXT NOT NULL,
    bin_idx               INTEGER NOT NULL,
    n                     INTEGER NOT NULL,     -- finished requests; 0: an empty bin, its means are NULL
    n_clusters            INTEGER NOT NULL,     -- distinct contexts
    acc_mean              REAL,                 -- mean score, failures 0
    acc_std               REAL,                 -- population
    acc_ci_low            REAL,
    acc_ci_high           REAL,
    acc_ci_method         TEXT,                 -- wilson | wilson_effective_n | exact_bound | percentile_bootstrap
    acc_answered          REAL,                 -- mean score without failures
    em_mean               REAL,                 -- exact match
    f1_mean               REAL,                 -- token F1
    n_failures            INTEGER NOT NULL,     -- requests that failed
    fail_rate             REAL,                 -- n_failures / n
    fail_ci_low           REAL,                 -- Wilson, as fail_ci_high
    fail_ci_high          REAL,
    label_counts_json     TEXT NOT NULL,        -- {label: count}, request failures and answered ones alike
    flag_counts_json      TEXT NOT NULL,
    identical_to_full     REAL,                 -- share of outputs equal to full cache; NULL at full cache itself
    latency_p50_s         REAL,                 -- latencies and tokens: of all answered requests
    latency_p95_s         REAL,
    ttft_p50_s            REAL,
    ttft_p95_s            REAL,
    ttfb_p50_s            REAL,
    tpot_p50_s            REAL,
    tpot_p95_s            REAL,
    prompt_tokens_p50     REAL,                 -- server's count, as of the completion
    prompt_tokens_p95     REAL,
    completion_tokens_p50 REAL,
    completion_tokens_p95 REAL,
    token_len_p50         REAL,                 -- our own count of the same prompts
    context_tokens_p50    REAL,                 -- prompt minus this = template overhead
    cached_share          REAL,                 -- cached / all prompt tokens: the cache state of the latencies
    kept_fraction_p50     REAL,                 -- effective budget as a fraction; NULL without evidence
    kept_tokens_p50       REAL,                 -- NULL without evidence
    kv_bytes_p50          REAL,                 -- bytes of the kept cache per request; NULL without evidence
    fingerprint           TEXT NOT NULL,
    PRIMARY KEY (run_id, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS run_evidence (       -- was the budget applied?
    run_id        TEXT PRIMARY KEY REFERENCES runs,
    status        TEXT NOT NULL,                -- verified | verified as changed (the cache is another one than at full
                                                --   cache, and no name says how wide) | unverified | contradicted |
                                                --   full (cache: nothing to prove)
    source        TEXT NOT NULL,                -- echoed | metric | log | json | bytes per token | configured | none |
                                                --   mixed
    reason        TEXT NOT NULL,                -- a sentence
    n             INTEGER NOT NULL,             -- responses looked at
    n_off         INTEGER NOT NULL,             -- of them, effective off by more than the tolerance
    requested     REAL,                         -- budget asked, in kv_unit
    effective_p50 REAL,                         -- median of what the evidence shows
    fingerprint   TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS budget_stats (       -- paired against full cache: per task, series, budget and bin
    exp_group_id  TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    dataset_id    TEXT NOT NULL,
    series        TEXT NOT NULL,
    kv_budget     REAL NOT NULL,
    repeat_idx    INTEGER NOT NULL,             -- 0; > 0 with series 'full' = the A/A control
    bin_idx       INTEGER NOT NULL,
    run_id        TEXT NOT NULL,
    n             INTEGER NOT NULL,             -- pairs (same example at full cache and here)
    n_clusters    INTEGER NOT NULL,             -- distinct contexts
    acc_mean      REAL,                         -- over the pairs; failures score 0
    acc_ci_low    REAL,
    acc_ci_high   REAL,
    drop_mean     REAL,                         -- accuracy at full cache minus here, in score units
    drop_ci_low   REAL,
    drop_ci_high  REAL,
    n_worse       INTEGER,                      -- pairs that lost score
    n_better      INTEGER,                      -- pairs that gained score
    p_safe        REAL,                         -- one-sided p of "drop >= margin": small = proven non-inferior.
                                                --   Pairs without an outcome count as lost; where requests failed at
                                                --   full cache, the larger p with that of the pairs it answered
    p_loss        REAL,                         -- one-sided p of "drop <= 0": small = a real loss
    p_collapse    REAL,                         -- one-sided p of "drop <= margin": small = worse beyond the margin
    test_method   TEXT,                         -- which test gave the p values
    drop_failures REAL,                         -- Shapley share of the drop due to request failures
    drop_answers  REAL,                         -- and due to the answers: cut off, or wrong
    drop_json     TEXT NOT NULL,                -- by label; CUT_OFF: answers cut off at their length before anything
                                                --   right. All labels sum to the drop
    within_noise  INTEGER,                      -- 1: no more than the A/A control's noise gives; NULL: no control
    fingerprint   TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, dataset_id, series, kv_budget, repeat_idx, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS transition_summary ( -- the verdict: per task, series and bin (-1 = all bins)
    exp_group_id           TEXT NOT NULL,
    generation             INTEGER NOT NULL,
    dataset_id             TEXT NOT NULL,
    series                 TEXT NOT NULL,
    kv_policy              TEXT NOT NULL,       -- of the series
    kv_mode                TEXT NOT NULL,       -- of the series
    bin_idx                INTEGER NOT NULL,
    n                      INTEGER NOT NULL,    -- pairs at the budget that has fewest
    acc_full               REAL,                -- accuracy at full cache
    safe_budget            REAL,                -- claim safe: the smallest budget such that it and all above are
                                                --   proven non-inferior
    collapse_budget        REAL,                -- claim loss: the largest budget such that it and all below are
                                                --   proven worse than full cache
    collapse_margin_budget REAL,                -- claim broken: the same, worse by more than the margin
    zone_low               REAL,                -- = collapse_margin_budget; NULL: open below
    zone_high              REAL,                -- = safe_budget; NULL: open above
    half_loss_budget       REAL,                -- where half of the total loss has happened on the isotonic curve
    half_loss_ci_low       REAL,
    half_loss_ci_high      REAL,
    zone_low_tokens        REAL,                -- zone_low as kept tokens (median prompt); NULL without evidence
    zone_high_tokens       REAL,                -- zone_high as kept tokens
    half_loss_tokens       REAL,                -- half_loss_budget as kept tokens
    zone_json              TEXT NOT NULL,       -- spread: the zone over bootstrap resamples; noise: the A/A control;
                                                --   notes: floors, ceilings; needed: what n_needed would settle;
                                                --   floor: what full cache has to lose; gains: p of every budget;
                                                --   left_out: levels that most requests are still pending of;
                                                --   bin -1 also cliff, length_by_budget; prompts: the server's counts;
                                                --   canary: the answers beside one that doubted the budget;
                                                --   seeds: does the server keep to them, where answers are drawn;
                                                --   while_generating: what each level that evicts then did
    verdict                TEXT NOT NULL,       -- transition | no_transition_in_range | cannot_tell | nothing_to_lose |
                                                --   no_baseline | unverified (prompts were read shorter than sent)
    verdict_text           TEXT NOT NULL,       -- the same in a sentence
    n_needed               INTEGER,             -- pairs that would settle the first budget not proven safe
    role                   TEXT NOT NULL,       -- confirmatory | holm | exploratory
    evidence               TEXT NOT NULL,       -- worst evidence status among the series' runs
    partial                INTEGER NOT NULL,    -- 1: computed while requests were missing
    method                 TEXT NOT NULL,       -- tests, alpha, margin, resamples, seed
    pre_budget             REAL,                -- the step rule of docs/STATISTICS.md: last budget before the step
    transition_budget      REAL,                -- first budget whose mean falls by >= drop_threshold; NULL: none
    acc_pre                REAL,                -- accuracy at pre_budget
    acc_post               REAL,                -- accuracy at transition_budget
    "drop"                 REAL,                -- acc_pre - acc_post
    transition_bin_idx     INTEGER,             -- bin with the largest drop over the step
    fingerprint            TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, dataset_id, series, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS comparisons (        -- series against series at one budget, paired, Holm-adjusted
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    dataset_id   TEXT NOT NULL,
    series_a     TEXT NOT NULL,                 -- 'constrained full': full cache under the other restrictions of b
    series_b     TEXT NOT NULL,
    kv_budget    REAL NOT NULL,
    bin_idx      INTEGER NOT NULL,
    n            INTEGER NOT NULL,              -- pairs
    diff_mean    REAL,                          -- accuracy of a minus accuracy of b
    diff_ci_low  REAL,
    diff_ci_high REAL,
    p            REAL,                          -- two-sided
    p_holm       REAL,                          -- adjusted over the pairs with the first series at all
                                                --   budgets, or over all other pairs
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, dataset_id, series_a, series_b, kv_budget, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS outcome_changes (    -- beside accuracy: what else changes with the budget, all bins together
    exp_group_id   TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    dataset_id     TEXT NOT NULL,
    series         TEXT NOT NULL,
    kv_budget      REAL NOT NULL,
    repeat_idx     INTEGER NOT NULL,            -- 0; > 0 with series 'full' = the A/A control
    measure        TEXT NOT NULL,               -- completion_tokens | cut_off | empty | repetition | format_error |
                                                --   identical | first_divergence | ttft | tpot | latency; of tool calls also
                                                --   call_unreadable | call_schema | call_name | call_arguments; else
                                                --   part:NAME, a part of the score (an instruction that was followed)
    n              INTEGER NOT NULL,            -- pairs of answers that it is known of; first_divergence: that part
    full_value     REAL,                        -- at full cache: mean tokens, median seconds, or a share of answers; identical and
                                                --   first_divergence: of full cache's repeats. NULL in `identical`:
                                                --   there is none to compare with, and neither is to be shown
    value          REAL,                        -- here; identical: share equal to full's text; first_divergence: median
                                                --   character at which the others part from it
    change         REAL,                        -- completion_tokens: value / full_value; shares: value - full_value;
                                                --   times: median of the ratio, request by request;
                                                --   first_divergence: NULL
    change_ci_low  REAL,                        -- first_divergence: interval of value. NULL: open, or too few contexts
    change_ci_high REAL,
    p_holm         REAL,                        -- two-sided, of no change, adjusted over all measures, budgets and
                                                --   series of the task; NULL: no pair changed, or it isn't tested
    fingerprint    TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, dataset_id, series, kv_budget, repeat_idx, measure)
) STRICT;

CREATE TABLE IF NOT EXISTS suite_stats (        -- several tasks: the mean over them at each budget, paired with full
    exp_group_id     TEXT NOT NULL,
    generation       INTEGER NOT NULL,
    series           TEXT NOT NULL,
    kv_budget        REAL NOT NULL,
    repeat_idx       INTEGER NOT NULL,          -- 0; > 0 with series 'full' = the A/A control
    n_tasks          INTEGER NOT NULL,          -- that have pairs at this budget
    n                INTEGER NOT NULL,          -- pairs over all tasks
    n_clusters       INTEGER NOT NULL,          -- distinct contexts over all tasks
    mean_full        REAL,                      -- accuracy at full cache: every task weighs alike, in it every bin
    mean_here        REAL,                      -- accuracy at this budget
    drop_mean        REAL,                      -- mean_full minus mean_here
    drop_ci_low      REAL,
    drop_ci_high     REAL,
    p_safe           REAL,                      -- one-sided p of "the mean drop is the margin or more"
    p_guard          REAL,                      -- largest over tasks of p of "the task loses the guard or more"
    p_everywhere     REAL,                      -- largest of p_safe, p_guard and, over tasks, p of "the task loses the
                                                --   margin or more": what is safe everywhere is suite safe
    p_loss           REAL,                      -- one-sided p of "the mean drop is 0 or less"
    p_collapse       REAL,                      -- one-sided p of "the mean drop is the margin or less"
    worst_task       TEXT,                      -- with the largest upper bound of its drop
    worst_task_bound REAL,                      -- no task loses more: valid at 1 - alpha/2
    n_safe_tasks     INTEGER,                   -- at least so many tasks lose less than the margin
    broken_tasks     TEXT NOT NULL,             -- JSON list: proven to lose more than the margin, Holm over tasks
    fingerprint      TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, series, kv_budget, repeat_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS suite_summary (      -- several tasks: the verdict over them, per series
    exp_group_id       TEXT NOT NULL,
    generation         INTEGER NOT NULL,
    series             TEXT NOT NULL,
    n_tasks            INTEGER NOT NULL,        -- that the verdict is over
    n_nothing_to_lose  INTEGER NOT NULL,        -- of them, whose full cache is not above its floor by the margin
    n_cannot_tell      INTEGER NOT NULL,        -- of them, neither proven safe nor proven broken somewhere
    suite_safe         REAL,                    -- smallest budget such that it and all above lose less than the margin
                                                --   on average and less than the guard in every task
    guard              REAL NOT NULL,           -- analysis.guard
    worst_task         TEXT,                    -- at suite_safe, else at the largest budget
    worst_task_bound   REAL,                    -- there no task loses more
    n_safe_tasks       INTEGER,                 -- there so many tasks lose less than the margin
    safe_everywhere    REAL,                    -- smallest budget such that it and all above are safe in every task
    broken_somewhere   REAL,                    -- largest budget such that at it and all below a task is proven broken
    broken_tasks       TEXT NOT NULL,           -- JSON list: those tasks, at broken_somewhere
    mean_full          REAL,                    -- accuracy at full cache, mean over tasks
    mean_safe_budget   REAL,                    -- smallest budget such that at it and above the mean is safe
    mean_broken_budget REAL,                    -- largest budget such that at it and below the mean is broken
    n_needed           INTEGER,                 -- examples a task that would settle the first budget not proven safe
    verdict            TEXT NOT NULL,           -- as in transition_summary
    verdict_text       TEXT NOT NULL,           -- the same in a sentence
    tasks_json         TEXT NOT NULL,           -- [{task, dataset_id, verdict, safe, broken, n, n_needed, ...}]
    evidence           TEXT NOT NULL,           -- worst evidence status among the series' runs
    partial            INTEGER NOT NULL,        -- 1: computed while requests were missing
    method             TEXT NOT NULL,           -- tests, alpha, margin, guard, weights
    fingerprint        TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, series)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_stats (        -- bench: a metric of one stage (a load at a level and repeat); seconds
    run_id              TEXT NOT NULL REFERENCES runs,
    metric              TEXT NOT NULL,          -- ttfb | ttft | tpot | itl (per chunk) | itl_token | latency | *_sent
    n                   INTEGER NOT NULL,       -- requests that have it; itl: gaps
    n_failed            INTEGER NOT NULL,       -- measured requests that failed, +inf in the with_failures columns
    mean_s              REAL,                   -- of those that were answered, as the percentiles
    p50_s               REAL,
    p90_s               REAL,
    p95_s               REAL,
    p99_s               REAL,
    max_s               REAL,
    p50_with_failures_s REAL,                   -- Infinity, here and below: the percentile lies among the failures
    p90_with_failures_s REAL,
    p95_with_failures_s REAL,
    p99_with_failures_s REAL,
    fingerprint         TEXT NOT NULL,
    PRIMARY KEY (run_id, metric)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_points (       -- bench: one load at one level, its repeats together
    exp_group_id       TEXT NOT NULL,
    generation         INTEGER NOT NULL,
    level              TEXT NOT NULL,           -- label of the level; '': levels are not benched
    load               TEXT NOT NULL,           -- label of the load
    loop               TEXT NOT NULL,           -- open | closed
    value              REAL NOT NULL,           -- requests per second, or requests in flight
    n_repeats          INTEGER NOT NULL,        -- stages put together
    n_started          INTEGER NOT NULL,        -- measured requests that were sent
    n_failed           INTEGER NOT NULL,        -- of them, failed
    n_owed             INTEGER NOT NULL,        -- planned and still without an outcome; > 0: PARTIAL
    attainment         REAL,                    -- share of the sent requests that kept every limit; NULL: no limits
    sent_share         REAL,                    -- open: rate of sending over planned rate, worst repeat
    dispersion         REAL,                    -- open: index of dispersion of the sending times, mean of the repeats
    cache              TEXT NOT NULL,           -- cold | warm | mixed | unknown
    cached_share       REAL,                    -- prompt tokens from the prefix cache / prompt tokens
    client             TEXT NOT NULL,           -- client-clean | CLIENT-BOUND | unknown, worst repeat
    error_bound_ms     REAL,                    -- of that verdict
    token_source       TEXT NOT NULL,           -- usage | chunks | mixed | none
    figures_json       TEXT NOT NULL,           -- {name: {value, low, high, method}}: *_per_s, METRIC_STAT_s
    with_failures_json TEXT NOT NULL,           -- {METRIC_STAT_s: seconds, null = beyond every measured value}
    objectives_json    TEXT NOT NULL,           -- [{name, limit_s, seen_s, verdict, n, n_beyond, n_needed}]
    server_json        TEXT NOT NULL,           -- the server's own figures: TTFT in parts, KV cache usage
    fingerprint        TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, load)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_turns (        -- bench: turns of one number of a load's conversations, measured ones
    exp_group_id  TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    level         TEXT NOT NULL,                -- label of the level; '': levels are not benched
    load          TEXT NOT NULL,                -- label of the load
    turn          INTEGER NOT NULL,             -- 0 | 1 | 2 | 3: this one and all later
    n             INTEGER NOT NULL,             -- with an outcome
    n_failed      INTEGER NOT NULL,             -- of them, not answered
    n_lost        INTEGER NOT NULL,             -- of these, never sent: a turn before had failed
    asked_tokens  REAL,                         -- mean prompt of the answered, by our count
    prompt_tokens REAL,                         -- the same, by the server's
    shared_tokens REAL,                         -- of the prompt, as planned: begun alike by an earlier one, or generated
                                                --   by the server itself
    cached_tokens REAL,                         -- of the prompt, as the server says: from its prefix cache; NULL: it
                                                --   doesn't say
    shared_share  REAL,                         -- shared tokens / prompt tokens, by our count
    cached_share  REAL,                         -- cached tokens / prompt tokens, by the server's
    cache         TEXT NOT NULL,                -- cold | warm | mixed | unknown
    ttft_p50_s    REAL,                         -- of the answered; from the intended start in an open loop
    ttft_p99_s    REAL,
    tpot_p50_s    REAL,
    tpot_p99_s    REAL,
    latency_p50_s REAL,
    latency_p99_s REAL,
    delay_p50_s   REAL,                         -- first byte after the end of the turn before plus its think time
    delay_p99_s   REAL,
    fingerprint   TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, load, turn)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_conversations ( -- bench: the measured conversations of a load, each as one
    exp_group_id       TEXT NOT NULL,
    generation         INTEGER NOT NULL,
    level              TEXT NOT NULL,           -- label of the level; '': levels are not benched
    load               TEXT NOT NULL,           -- label of the load
    n                  INTEGER NOT NULL,        -- with an outcome of any turn
    n_whole            INTEGER NOT NULL,        -- of them, with every turn answered, in one window: the rest is of these
    n_failed           INTEGER NOT NULL,        -- of all, those with a turn that failed
    turns_mean         REAL NOT NULL,           -- of all, turns with an outcome
    duration_p50_s     REAL,                    -- from the first turn's start to the last text
    duration_p99_s     REAL,
    think_mean_s       REAL,                    -- of a conversation, as planned
    input_tokens_mean  REAL,                    -- of all its prompts, by the server's count where it has one
    output_tokens_mean REAL,                    -- of all its replies
    fingerprint        TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, load)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_parts (        -- bench: a load by its parts: steps, slices of a ramp, models, limits broken
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    level        TEXT NOT NULL,                 -- label of the level; '': levels are not benched
    load         TEXT NOT NULL,                 -- label of the load
    kind         TEXT NOT NULL,                 -- step | slice (of a ramp) | model | break (of an objective)
    part         INTEGER NOT NULL,              -- 0, 1, ... of its kind
    name         TEXT NOT NULL,                 -- '8/s', '4.8 to 6.7/s', a model, an objective
    value        REAL,                          -- requests/s or in flight; of a model its share by weight; of a break
                                                --   where it lies, NULL: none can be told
    begins_s     REAL,                          -- of the load's measured part; NULL: it has no time of its own
    ends_s       REAL,
    n            INTEGER NOT NULL,              -- measured requests with an outcome that its figures are of
    n_failed     INTEGER NOT NULL,              -- of them, failed; of a break, beyond the limit
    n_margin     INTEGER NOT NULL,              -- more at its head that are in no figure
    figures_json TEXT NOT NULL,                 -- {name: {value, low, high, method}}: METRIC_STAT_s, of steps *_per_s
    objectives_json TEXT NOT NULL,              -- as of bench_points
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, load, kind, part)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_zones (        -- bench: knee of a ladder, highest load within the objectives
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    level        TEXT NOT NULL,                 -- label of the level; '': levels are not benched
    kind         TEXT NOT NULL,                 -- knee | objectives
    loop         TEXT NOT NULL,                 -- open: loads are requests/s | closed: requests in flight
    low          REAL,                          -- highest load proven to lie on the near side; NULL: none
    high         REAL,                          -- lowest load proven to lie beyond; NULL: none
    seen         REAL,                          -- by the point estimates alone; NULL: no load that was tried
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, kind)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_quality (      -- bench.scored: answers under one load beside the same prompts unloaded
    exp_group_id      TEXT NOT NULL,
    generation        INTEGER NOT NULL,
    level             TEXT NOT NULL,            -- label of the level; '': levels are not benched
    load              TEXT NOT NULL,            -- label of the load; 'unloaded': asked again without a load, the control
    value             REAL NOT NULL,            -- requests per second, or requests in flight; 0 of the control
    n                 INTEGER NOT NULL,         -- examples that both were asked
    n_clusters        INTEGER NOT NULL,         -- distinct contexts of them
    n_answers         INTEGER NOT NULL,         -- answers of them under the load, failures among them
    n_unasked         INTEGER NOT NULL,         -- examples asked unloaded and not under this load
    n_pending         INTEGER NOT NULL,         -- requests under the load that are still owed
    acc_unloaded      REAL,                     -- every bin weighs alike; an example is the mean of its answers
    acc_loaded        REAL,                     -- the same under the load
    loss_mean         REAL,                     -- acc_unloaded minus acc_loaded
    loss_ci_low       REAL,
    loss_ci_high      REAL,
    loss_failures     REAL,                     -- part of the loss that is failed requests; the rest is answers
    fail_unloaded     REAL,                     -- share of the requests that failed
    fail_loaded       REAL,                     -- the same under the load
    cut_off_unloaded  REAL,                     -- share of the answers that their length ended
    cut_off_loaded    REAL,                     -- the same under the load
    n_worse           INTEGER NOT NULL,         -- examples whose mean score is lower under the load
    n_better          INTEGER NOT NULL,         -- or higher
    p_safe            REAL,                     -- one-sided p of "the margin or more is lost"
    p_loss            REAL,                     -- one-sided p of "nothing is lost"
    p_beyond          REAL,                     -- one-sided p of "the margin or less is lost"
    verdict           TEXT NOT NULL,            -- beyond | loss | small_loss | safe | cannot_tell | nothing_to_lose; of
                                                --   the control: control
    within_noise      INTEGER,                  -- 1: the control's noise alone would give such a loss; NULL: no noise
    n_needed          INTEGER,                  -- examples that would tell whether it is more than the margin
    floor_json        TEXT NOT NULL,            -- what unloaded answers have to lose: kind, floor, headroom, p; {}: none
    method            TEXT NOT NULL,            -- tests, level, margin, loads planned
    fingerprint       TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, load)
) STRICT;

CREATE TABLE IF NOT EXISTS analysis_state (     -- what a derived stage was computed from; equal = nothing to do
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    stage        TEXT NOT NULL,                 -- score | analyze | counts | volumes
    scope        TEXT NOT NULL,                 -- a run_id, or '*'
    fingerprint  TEXT NOT NULL,
    detail_json  TEXT NOT NULL,                 -- settings used, counts, PARTIAL
    PRIMARY KEY (exp_group_id, generation, stage, scope)
) STRICT;
