CREATE TABLE IF NOT EXISTS experiments (
    exp_group_id    TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    created_at      TEXT NOT NULL,
    contract_json   TEXT NOT NULL,
    contract_sha256 TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation)
) STRICT;

CREATE TABLE IF NOT EXISTS sessions (
    session_id    TEXT PRIMARY KEY,
    exp_group_id  TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    started_at    TEXT NOT NULL,
    command       TEXT NOT NULL,
    config_yaml   TEXT NOT NULL,
    config_sha256 TEXT NOT NULL,
    kvt_version   TEXT NOT NULL,
    git_commit    TEXT,
    python        TEXT NOT NULL,
    platform      TEXT NOT NULL,
    engine_loop   TEXT,
    concurrency   INTEGER,
    order_seed    INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS session_ends (
    session_id TEXT PRIMARY KEY REFERENCES sessions,
    ended_at   TEXT NOT NULL,
    exit_code  INTEGER NOT NULL,
    reason     TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS datasets (
    dataset_id       TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    task             TEXT NOT NULL,
    tokenizer_name   TEXT NOT NULL,
    tokenizer_sha256 TEXT NOT NULL,
    source_revision  TEXT,
    metric           TEXT NOT NULL,
    prompt_json      TEXT NOT NULL,
    selection_json   TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS manifests (
    dataset_id TEXT NOT NULL REFERENCES datasets,
    version    INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    created_at TEXT NOT NULL,
    n_entries  INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, version)
) STRICT;

CREATE TABLE IF NOT EXISTS examples (
    dataset_id     TEXT NOT NULL REFERENCES datasets,
    example_id     TEXT NOT NULL,
    question       TEXT NOT NULL,
    context        TEXT NOT NULL,
    answers_json   TEXT NOT NULL,
    meta_json      TEXT NOT NULL,
    context_sha256 TEXT NOT NULL,
    PRIMARY KEY (dataset_id, example_id)
) STRICT;

CREATE TABLE IF NOT EXISTS bins (
    dataset_id TEXT NOT NULL REFERENCES datasets,
    bin_idx    INTEGER NOT NULL,
    lo_tokens  INTEGER NOT NULL,
    hi_tokens  INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS manifest_entries (
    dataset_id       TEXT NOT NULL,
    example_id       TEXT NOT NULL,
    seq              INTEGER NOT NULL,
    version          INTEGER NOT NULL,
    bin_idx          INTEGER NOT NULL,
    token_len        INTEGER NOT NULL,
    context_tokens   INTEGER NOT NULL,
    original_tokens  INTEGER NOT NULL,
    prompt_truncated INTEGER NOT NULL,
    prompt_sha256    TEXT NOT NULL,
    PRIMARY KEY (dataset_id, example_id),
    UNIQUE (dataset_id, seq),
    FOREIGN KEY (dataset_id, example_id) REFERENCES examples,
    FOREIGN KEY (dataset_id, bin_idx) REFERENCES bins
) STRICT;

CREATE TABLE IF NOT EXISTS runs (
    run_id                  TEXT PRIMARY KEY,
    exp_group_id            TEXT NOT NULL,
    generation              INTEGER NOT NULL,
    dataset_id              TEXT NOT NULL REFERENCES datasets,
    model_name              TEXT NOT NULL,
    base_url                TEXT NOT NULL,
    engine_name             TEXT NOT NULL,
    series                  TEXT NOT NULL,
    kv_policy               TEXT NOT NULL,
    kv_budget               REAL NOT NULL,
    kv_unit                 TEXT NOT NULL,
    kv_mode                 TEXT NOT NULL,
    is_full                 INTEGER NOT NULL,
    kv_apply                TEXT NOT NULL,
    kv_params_json          TEXT NOT NULL,
    apply_json              TEXT NOT NULL,
    repeat_idx              INTEGER NOT NULL,
    prompt_template_version TEXT NOT NULL,
    decoding_json           TEXT NOT NULL,
    level_idx               INTEGER NOT NULL,
    created_at              TEXT NOT NULL,
    FOREIGN KEY (exp_group_id, generation) REFERENCES experiments,
    UNIQUE (exp_group_id, generation, series, kv_budget, kv_unit, repeat_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS requests (
    request_id    TEXT PRIMARY KEY,
    run_id        TEXT NOT NULL REFERENCES runs,
    example_id    TEXT NOT NULL,
    prompt_sha256 TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    UNIQUE (run_id, example_id)
) STRICT;

CREATE TABLE IF NOT EXISTS try_series (
    request_id TEXT NOT NULL REFERENCES requests,
    series_idx INTEGER NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions,
    created_at TEXT NOT NULL,
    PRIMARY KEY (request_id, series_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS attempts (
    request_id    TEXT NOT NULL REFERENCES requests,
    attempt_idx   INTEGER NOT NULL,
    series_idx    INTEGER NOT NULL,
    session_id    TEXT NOT NULL REFERENCES sessions,
    started_at    TEXT NOT NULL,
    endpoint      TEXT NOT NULL,
    http_status   INTEGER,
    end_state     TEXT NOT NULL,
    error_type    TEXT,
    error_message TEXT,
    partial_text  TEXT,
    retry_after_s REAL,
    latency_s     REAL NOT NULL,
    PRIMARY KEY (request_id, attempt_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS responses (
    request_id       TEXT PRIMARY KEY REFERENCES requests,
    attempt_idx      INTEGER NOT NULL,
    text             TEXT NOT NULL,
    reasoning        TEXT,
    finish_reason    TEXT,
    usage_json       TEXT,
    kv_evidence_json TEXT,
    kv_effective     REAL,
    created_at       TEXT NOT NULL,
    FOREIGN KEY (request_id, attempt_idx) REFERENCES attempts
) STRICT;

CREATE TABLE IF NOT EXISTS telemetry (
    request_id           TEXT NOT NULL,
    attempt_idx          INTEGER NOT NULL,
    intended_ns          INTEGER,
    scheduled_ns         INTEGER,
    dequeued_ns          INTEGER,
    limits_ns            INTEGER,
    conn_ready_ns        INTEGER,
    conn_reused          INTEGER,
    start_ns             INTEGER,
    headers_sent_ns      INTEGER,
    body_sent_ns         INTEGER,
    status_ns            INTEGER,
    first_byte_ns        INTEGER,
    first_event_ns       INTEGER,
    first_reasoning_ns   INTEGER,
    first_content_ns     INTEGER,
    first_tool_ns        INTEGER,
    last_delta_ns        INTEGER,
    finish_ns            INTEGER,
    usage_ns             INTEGER,
    done_ns              INTEGER,
    end_ns               INTEGER,
    stamp_source         TEXT NOT NULL,
    first_byte_kernel_ns INTEGER,
    first_text_kernel_ns INTEGER,
    first_text_coalesced INTEGER,
    n_events             INTEGER,
    n_text_chunks        INTEGER,
    bytes_received       INTEGER,
    chunks               BLOB,
    prompt_tokens        INTEGER,
    completion_tokens    INTEGER,
    cached_tokens        INTEGER,
    PRIMARY KEY (request_id, attempt_idx),
    FOREIGN KEY (request_id, attempt_idx) REFERENCES attempts
) STRICT;

CREATE TABLE IF NOT EXISTS give_ups (
    request_id TEXT NOT NULL REFERENCES requests,
    series_idx INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (request_id, series_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS server_snapshots (
    snapshot_id   INTEGER PRIMARY KEY,
    session_id    TEXT NOT NULL REFERENCES sessions,
    run_id        TEXT REFERENCES runs,
    taken_at      TEXT NOT NULL,
    phase         TEXT NOT NULL,
    endpoint      TEXT NOT NULL,
    identity_json TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS probes (
    probe_id      INTEGER PRIMARY KEY,
    session_id    TEXT NOT NULL REFERENCES sessions,
    kind          TEXT NOT NULL,
    level         TEXT NOT NULL,
    prompt_sha256 TEXT NOT NULL,
    answer        TEXT,
    verdict       TEXT,
    detail_json   TEXT NOT NULL,
    created_at    TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS client_health (
    session_id      TEXT NOT NULL REFERENCES sessions,
    created_at      TEXT NOT NULL,
    verdict         TEXT NOT NULL,
    error_bound_ms  REAL NOT NULL,
    signal          TEXT NOT NULL,
    loop_lag_p50_ms REAL NOT NULL,
    loop_lag_p99_ms REAL NOT NULL,
    loop_lag_max_ms REAL NOT NULL,
    send_lag_p99_ms REAL,
    cpu_share       REAL NOT NULL,
    gc_pause_max_ms REAL NOT NULL,
    detail_json     TEXT NOT NULL,
    PRIMARY KEY (session_id, created_at)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_stages (
    run_id           TEXT PRIMARY KEY REFERENCES runs,
    stage_idx        INTEGER NOT NULL,
    purpose          TEXT NOT NULL,
    load             TEXT NOT NULL,
    level            TEXT,
    loop             TEXT NOT NULL,
    arrival          TEXT,
    rate_per_s       REAL,
    burstiness       REAL,
    concurrency      INTEGER,
    max_in_flight    INTEGER,
    n_warm_up        INTEGER NOT NULL,
    n_measured       INTEGER,
    duration_s       REAL,
    seed             INTEGER NOT NULL,
    salt             TEXT,
    workload_json    TEXT NOT NULL,
    slo_json         TEXT NOT NULL,
    calibration_json TEXT,
    plan_json        TEXT NOT NULL,
    created_at       TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS bench_arrivals (
    request_id    TEXT PRIMARY KEY REFERENCES requests,
    session_id    TEXT NOT NULL REFERENCES sessions,
    phase         TEXT NOT NULL,
    offset_ns     INTEGER,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    group_idx     INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS bench_windows (
    run_id     TEXT NOT NULL REFERENCES runs,
    session_id TEXT NOT NULL REFERENCES sessions,
    window_idx INTEGER NOT NULL,
    start_ns   INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    n_planned  INTEGER,
    duration_s REAL,
    PRIMARY KEY (run_id, session_id)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_window_ends (
    run_id           TEXT NOT NULL,
    session_id       TEXT NOT NULL,
    measured_from_ns INTEGER,
    measured_to_ns   INTEGER,
    drained_ns       INTEGER NOT NULL,
    n_sent           INTEGER NOT NULL,
    n_measured       INTEGER NOT NULL,
    n_late           INTEGER NOT NULL,
    late_max_ms      REAL NOT NULL,
    n_held           INTEGER NOT NULL,
    peak_in_flight   INTEGER NOT NULL,
    reason           TEXT NOT NULL,
    stop_rule        TEXT,
    client_json      TEXT NOT NULL,
    ended_at         TEXT NOT NULL,
    PRIMARY KEY (run_id, session_id),
    FOREIGN KEY (run_id, session_id) REFERENCES bench_windows
) STRICT;

CREATE TABLE IF NOT EXISTS server_samples (
    sample_id    INTEGER PRIMARY KEY,
    session_id   TEXT NOT NULL REFERENCES sessions,
    run_id       TEXT NOT NULL REFERENCES runs,
    phase        TEXT NOT NULL,
    at_ns        INTEGER NOT NULL,
    took_ms      REAL NOT NULL,
    taken_at     TEXT NOT NULL,
    endpoint     TEXT NOT NULL,
    metrics_json TEXT,
    error        TEXT
) STRICT;

CREATE INDEX IF NOT EXISTS runs_by_group ON runs (exp_group_id, generation);
CREATE INDEX IF NOT EXISTS server_samples_by_run ON server_samples (run_id, session_id);

CREATE VIEW IF NOT EXISTS failures AS
SELECT r.request_id, r.run_id, r.example_id, a.error_type, a.http_status, g.reason,
       (SELECT count(*) FROM attempts n WHERE n.request_id = r.request_id) AS n_attempts
FROM give_ups g
JOIN requests r ON r.request_id = g.request_id
LEFT JOIN attempts a ON a.request_id = g.request_id
     AND a.attempt_idx = (SELECT max(m.attempt_idx) FROM attempts m WHERE m.request_id = g.request_id)
WHERE NOT EXISTS (SELECT 1 FROM responses p WHERE p.request_id = g.request_id)
  AND g.series_idx = (SELECT max(h.series_idx) FROM give_ups h WHERE h.request_id = g.request_id)
  AND NOT EXISTS (SELECT 1 FROM try_series t WHERE t.request_id = g.request_id AND t.series_idx > g.series_idx);

CREATE VIEW IF NOT EXISTS outcomes AS
SELECT r.request_id, r.run_id, r.example_id, p.attempt_idx,
       CASE WHEN p.request_id IS NOT NULL THEN 'response'
            WHEN f.request_id IS NOT NULL THEN 'failure' ELSE 'pending' END AS state
FROM requests r
LEFT JOIN responses p ON p.request_id = r.request_id
LEFT JOIN failures f ON f.request_id = r.request_id;

CREATE VIEW IF NOT EXISTS run_progress AS
SELECT u.run_id, u.exp_group_id, u.generation, u.series, u.kv_budget, u.repeat_idx,
       (SELECT count(*) FROM manifest_entries e WHERE e.dataset_id = u.dataset_id) AS planned,
       (SELECT count(*) FROM requests r WHERE r.run_id = u.run_id) AS requests,
       (SELECT count(*) FROM responses p JOIN requests r ON r.request_id = p.request_id WHERE r.run_id = u.run_id)
           AS responses,
       (SELECT count(*) FROM failures f WHERE f.run_id = u.run_id) AS failures
FROM runs u;

CREATE VIEW IF NOT EXISTS attempt_metrics AS
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

CREATE VIEW IF NOT EXISTS first_text AS
SELECT request_id, attempt_idx, first_text_ns, first_text_user_ns FROM attempt_metrics;

CREATE TABLE IF NOT EXISTS scores (
    request_id     TEXT PRIMARY KEY REFERENCES requests,
    em             REAL NOT NULL,
    f1             REAL NOT NULL,
    score          REAL NOT NULL,
    metric         TEXT NOT NULL,
    pred_norm      TEXT,
    gold_norm      TEXT,
    failure_label  TEXT,
    flags          TEXT NOT NULL,
    scorer_version TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS bin_stats (
    run_id                TEXT NOT NULL REFERENCES runs,
    dataset_id            TEXT NOT NULL,
    bin_idx               INTEGER NOT NULL,
    n                     INTEGER NOT NULL,
    n_clusters            INTEGER NOT NULL,
    acc_mean              REAL,
    acc_std               REAL,
    acc_ci_low            REAL,
    acc_ci_high           REAL,
    acc_ci_method         TEXT,
    acc_answered          REAL,
    em_mean               REAL,
    f1_mean               REAL,
    n_failures            INTEGER NOT NULL,
    fail_rate             REAL,
    fail_ci_low           REAL,
    fail_ci_high          REAL,
    label_counts_json     TEXT NOT NULL,
    flag_counts_json      TEXT NOT NULL,
    identical_to_full     REAL,
    latency_p50_s         REAL,
    latency_p95_s         REAL,
    ttft_p50_s            REAL,
    ttft_p95_s            REAL,
    ttfb_p50_s            REAL,
    tpot_p50_s            REAL,
    tpot_p95_s            REAL,
    prompt_tokens_p50     REAL,
    prompt_tokens_p95     REAL,
    completion_tokens_p50 REAL,
    completion_tokens_p95 REAL,
    token_len_p50         REAL,
    context_tokens_p50    REAL,
    cached_share          REAL,
    kept_fraction_p50     REAL,
    kept_tokens_p50       REAL,
    kv_bytes_p50          REAL,
    fingerprint           TEXT NOT NULL,
    PRIMARY KEY (run_id, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS run_evidence (
    run_id        TEXT PRIMARY KEY REFERENCES runs,
    status        TEXT NOT NULL,
    source        TEXT NOT NULL,
    reason        TEXT NOT NULL,
    n             INTEGER NOT NULL,
    n_off         INTEGER NOT NULL,
    requested     REAL,
    effective_p50 REAL,
    fingerprint   TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS budget_stats (
    exp_group_id  TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    series        TEXT NOT NULL,
    kv_budget     REAL NOT NULL,
    repeat_idx    INTEGER NOT NULL,
    bin_idx       INTEGER NOT NULL,
    run_id        TEXT NOT NULL,
    n             INTEGER NOT NULL,
    n_clusters    INTEGER NOT NULL,
    acc_mean      REAL,
    acc_ci_low    REAL,
    acc_ci_high   REAL,
    drop_mean     REAL,
    drop_ci_low   REAL,
    drop_ci_high  REAL,
    n_worse       INTEGER,
    n_better      INTEGER,
    p_safe        REAL,
    p_loss        REAL,
    p_collapse    REAL,
    test_method   TEXT,
    drop_failures REAL,
    drop_answers  REAL,
    drop_json     TEXT NOT NULL,
    within_noise  INTEGER,
    fingerprint   TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, series, kv_budget, repeat_idx, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS transition_summary (
    exp_group_id           TEXT NOT NULL,
    generation             INTEGER NOT NULL,
    series                 TEXT NOT NULL,
    kv_policy              TEXT NOT NULL,
    kv_mode                TEXT NOT NULL,
    bin_idx                INTEGER NOT NULL,
    n                      INTEGER NOT NULL,
    acc_full               REAL,
    safe_budget            REAL,
    collapse_budget        REAL,
    collapse_margin_budget REAL,
    zone_low               REAL,
    zone_high              REAL,
    half_loss_budget       REAL,
    half_loss_ci_low       REAL,
    half_loss_ci_high      REAL,
    zone_low_tokens        REAL,
    zone_high_tokens       REAL,
    half_loss_tokens       REAL,
    zone_json              TEXT NOT NULL,
    verdict                TEXT NOT NULL,
    verdict_text           TEXT NOT NULL,
    n_needed               INTEGER,
    role                   TEXT NOT NULL,
    evidence               TEXT NOT NULL,
    partial                INTEGER NOT NULL,
    method                 TEXT NOT NULL,
    pre_budget             REAL,
    transition_budget      REAL,
    acc_pre                REAL,
    acc_post               REAL,
    "drop"                 REAL,
    transition_bin_idx     INTEGER,
    fingerprint            TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, series, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS comparisons (
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    series_a     TEXT NOT NULL,
    series_b     TEXT NOT NULL,
    kv_budget    REAL NOT NULL,
    bin_idx      INTEGER NOT NULL,
    n            INTEGER NOT NULL,
    diff_mean    REAL,
    diff_ci_low  REAL,
    diff_ci_high REAL,
    p            REAL,
    p_holm       REAL,
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, series_a, series_b, kv_budget, bin_idx)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_stats (
    run_id              TEXT NOT NULL REFERENCES runs,
    metric              TEXT NOT NULL,
    n                   INTEGER NOT NULL,
    n_failed            INTEGER NOT NULL,
    mean_s              REAL,
    p50_s               REAL,
    p90_s               REAL,
    p95_s               REAL,
    p99_s               REAL,
    max_s               REAL,
    p50_with_failures_s REAL,
    p90_with_failures_s REAL,
    p95_with_failures_s REAL,
    p99_with_failures_s REAL,
    fingerprint         TEXT NOT NULL,
    PRIMARY KEY (run_id, metric)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_points (
    exp_group_id       TEXT NOT NULL,
    generation         INTEGER NOT NULL,
    level              TEXT NOT NULL,
    load               TEXT NOT NULL,
    loop               TEXT NOT NULL,
    value              REAL NOT NULL,
    n_repeats          INTEGER NOT NULL,
    n_started          INTEGER NOT NULL,
    n_failed           INTEGER NOT NULL,
    n_owed             INTEGER NOT NULL,
    attainment         REAL,
    sent_share         REAL,
    dispersion         REAL,
    cache              TEXT NOT NULL,
    cached_share       REAL,
    client             TEXT NOT NULL,
    error_bound_ms     REAL,
    token_source       TEXT NOT NULL,
    figures_json       TEXT NOT NULL,
    with_failures_json TEXT NOT NULL,
    objectives_json    TEXT NOT NULL,
    server_json        TEXT NOT NULL,
    fingerprint        TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, load)
) STRICT;

CREATE TABLE IF NOT EXISTS bench_zones (
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    level        TEXT NOT NULL,
    kind         TEXT NOT NULL,
    loop         TEXT NOT NULL,
    low          REAL,
    high         REAL,
    seen         REAL,
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, level, kind)
) STRICT;

CREATE TABLE IF NOT EXISTS analysis_state (
    exp_group_id TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    stage        TEXT NOT NULL,
    scope        TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    detail_json  TEXT NOT NULL,
    PRIMARY KEY (exp_group_id, generation, stage, scope)
) STRICT;
