"""What the words of a bench's report mean."""

DEFINITIONS = (
    (
        "TTFT",
        "first byte of the request written to first text received, content or reasoning; an early event without "
        "text is no token",
    ),
    (
        "from the intended start",
        "in an open loop a request's clock starts when the schedule wanted it sent, so that a "
        "stall is paid by all whom it delayed (no coordinated omission); `sent` columns start at the first byte",
    ),
    ("TPOT", "(last text - first text) / (tokens - 1), a figure per request"),
    (
        "ITL",
        "gap between two chunks of text; `per token` where a chunk carries several: a reply's gaps spread evenly "
        "over its tokens",
    ),
    ("latency", "start to last text"),
    (
        "turn",
        "a request of a conversation; a later one is due when the reply before it has ended and its user has thought. "
        "In an open loop it counts from that instant, in a closed one from its first byte; own delay is the difference",
    ),
    (
        "done/s",
        "answered requests per second. Closed loop: requests in flight / mean life (Little's law), over those "
        "that began once every place had been used; open loop: arrivals per second, times the share that came out as "
        "fast as it went in, times the share answered; of a server that fell behind, what came out",
    ),
    (
        "output tok/s",
        "closed loop: tokens by when they came; open loop: done/s times tokens of a reply, and tokens by "
        "when they came of a server that fell behind. Where a window is too short for its latencies, no rate is told",
    ),
    (
        "p50, p99, Max",
        "of the answered requests of a load, its repeats together, linear between order statistics; `p99 "
        "of each repeat` shows how runs differ",
    ),
    (
        "p99, failures = inf",
        "the same with every failed request, and every reply without a token, as infinitely slow: "
        "`inf` means that so many failed. Objectives are judged by it. Equal to p99 where nothing failed",
    ),
    (
        "no token, one piece",
        "a reply without text, reasoning or tool call has no latency; one whose tokens came in a "
        "single read has no TPOT and no ITL, for nobody saw how far apart the server made them",
    ),
    ("asked, got", "tokens of prompts and replies as the workload wanted them, and as the server counts them"),
    ("in SLO", "attainment: requests that kept every limit, of all that were sent; goodput: such requests per second"),
    (
        "met, missed",
        "proven at 95% by counting the requests beyond the limit, an exact binomial test; else `cannot "
        "tell`. Replies that do not show the metric may lie on either side",
    ),
    (
        "knee",
        "open loop: highest rate of which the server keeps up with at least 95%; closed loop: lowest concurrency "
        "of which it is proven that no higher one gave 5% more output, or grew by half of what the load did",
    ),
    (
        "dispersion",
        "variance of arrivals per cell of time over their mean: 1 for Poisson, 0 for a constant rate; beside it "
        "that of the trace, where one is replayed",
    ),
    (
        "cold, warm, mixed",
        "prompt tokens taken from a prefix cache: at most 5%, at least 90%, between; by usage or by "
        "the server's counters",
    ),
    (
        "preempted",
        "running requests whose KV cache the server took back for want of room, and which began again; by its counter "
        "over a stage",
    ),
    (
        "tokens a draft",
        "speculative decoding: tokens that one draft brought, the model's own next one included: 1 + accepted tokens / "
        "drafts",
    ),
    (
        "not ours",
        "requests that the server answered in a stage beyond those that this bench sent",
    ),
    (
        "verified, unverified, contradicted",
        "whether the server shows that it applied the level's budget, by what its "
        "replies, /metrics page or log say; a canary asks first whether the harshest budget changes any answer",
    ),
    (
        "client's error",
        "how late this client may have stamped what came, in 99% of instants; TPOT: over the tokens of "
        "a reply. From the intended start: and what sending late has added",
    ),
    ("CLIENT-BOUND", "said of a figure of which the client's error may be over 5%, and of a rate that was not sent"),
)
