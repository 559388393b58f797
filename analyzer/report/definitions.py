"""What the words of the report mean, and how to read failures: the same text in both reports."""

DEFINITIONS = (
    (
        "Accuracy",
        "Mean score of the task's own metric, or of the one that the headline names in its place, from 0 to 1. A "
        "failed request has no answer and scores 0. Over all lengths it is the equal-weight mean of the length bins.",
    ),
    (
        "Failure rate",
        "Requests given up without any answer, over all finished requests, whatever their length bin. A wrong "
        "answer is no failure, and what was refused for a key or a quota is pending.",
    ),
    (
        "Loss",
        "Accuracy at full cache minus accuracy at the budget, on the same examples (paired). Contexts, not single "
        "questions, are resampled for its interval.",
    ),
    (
        "Of full cache",
        "Accuracy relative to full cache's, in percent: 0.45 where full cache scores 0.60 is 75%. Verdicts are "
        "about the absolute loss, not about this share.",
    ),
    (
        "Budget asked, budget applied",
        "Nominal: what the request asked for. Effective: what the server shows that it kept (median). Kept tokens "
        "count the same in tokens, per layer and head.",
    ),
    (
        "Safe budget",
        "The smallest budget such that it and every larger one is proven to lose less than the margin {margin}. "
        "Tested from full cache down, one-sided at {one_sided}, stopping at the first that is not proven.",
    ),
    (
        "Broken, and real loss",
        "Broken: the largest budget such that it and every smaller one is proven to lose more than {margin}. Real "
        "loss: the same for more than 0. Both are tested from the smallest budget up.",
    ),
    (
        "Transition zone",
        "Between the safe budget and the broken one: quality changes there, or the sample is too small to say. "
        "It is open on a side where nothing is proven.",
    ),
    (
        "Cannot tell, pairs needed",
        "Too few pairs for a proof, which is no sign of safety. The number is what would settle the first open "
        "budget with a chance of 80%: to prove it safe where the loss seen is below {margin}, or a "
        "loss beyond it where one is proven at all; were the loss seen the true one. Not given where it would be a "
        "guess.",
    ),
    (
        "Confirmatory, Holm-adjusted, exploratory",
        "The first series over all lengths keeps the stated chance of error; further series share it (Holm); "
        "single length bins are not adjusted, so treat what only one of them shows as a hypothesis.",
    ),
    (
        "Ceiling, floor",
        "Ceiling: full cache is always right, so a smaller cache can only look worse. Floor: nothing is left to "
        "lose, at the smallest budgets or (nothing to lose) already at full cache, whose answers then score hardly "
        "more than against the answers to other examples; a flat line there is no safety.",
    ),
    (
        "Look",
        "With `sampling.strategy: focus_transition` examples may be added after an analysis; look k then spends "
        "alpha / 2^k, so that looking again costs certainty instead of hiding it.",
    ),
    (
        "Step rule",
        "The first budget whose mean falls by at least {threshold} against the next higher one. It raises false "
        "alarms in small samples and misses gradual decline, so it is shown for comparison and is no verdict.",
    ),
    (
        "Half of the loss",
        "The budget where half of what the smallest budget loses is lost, on a monotone curve through the means. "
        "Given only where that loss is proven and every length bin holds 10 contexts.",
    ),
    (
        "TTFT, TPOT, latency",
        "First text after the request's first byte was written; time per further token; last text after the same "
        "start. Waits for a limit or a connection are not in them.",
    ),
    (
        "Cache state",
        "cold: at most 5% of the prompt tokens came from a prefix cache; warm: at least 90%; mixed: between. "
        "Latencies of different states are not compared.",
    ),
    (
        "GiB saved",
        "Bytes of a cached token x prompt length x batch x the share not kept: arithmetic for your load. It "
        "becomes memory only where the server frees what it evicts.",
    ),
    (
        "Evidence",
        "verified: the server said what it kept, and it is what was asked. verified as changed: the cache is "
        "another one than at full cache, but no name says how wide. UNVERIFIED: nothing shows that the "
        "server applied the budget, or something speaks against it: an alarm says what.",
    ),
    (
        "Series, /aware, /agnostic",
        "A series is one policy in one mode. aware: the whole prompt is compressed, so the server may see the "
        "question when it chooses what to keep. agnostic: only the context is, as where it is stored for questions "
        "to come.",
    ),
    (
        "Canary",
        "Prompts asked before the sweep, at full cache twice and at the lowest budget. Alive: an answer changed. "
        "Dead: none did, so the server may ignore the budget. Inconclusive: full cache did not repeat itself. It "
        "is overruled where more answers of the sweep changed at that budget than in the A/A control (paired exact "
        "test at half of alpha).",
    ),
    (
        "A/A control",
        "Full cache run again, last. What differs from the first time is the server's own noise: no budget did it.",
    ),
    (
        "Shapley",
        "How a loss is split into failed requests, answers cut off and wrong answers: each cause's effect, averaged "
        "over the orders of counting it in, so that the parts add up to the loss.",
    ),
    (
        "On the front",
        "No other level has at least its accuracy with at most its memory, and is better in one of the two.",
    ),
    (
        "± ms, CLIENT-BOUND",
        "How late this client's own stamps were in 99% of instants: latencies are wrong by at most that. "
        "CLIENT-BOUND is said of a figure, or of a claimed difference, of which that is more than 5%. It says "
        "nothing about answers.",
    ),
)


def definitions(margin: str, one_sided: str, threshold: str) -> list[tuple[str, str]]:
    """DEFINITIONS with the figures that this analysis was asked for."""
    figures = {"margin": margin, "one_sided": one_sided, "threshold": threshold}
    return [(term, text.format(**figures)) for term, text in DEFINITIONS]


def suite_definitions(guard: str) -> list[tuple[str, str]]:
    """SUITE_DEFINITIONS with the guard that this analysis was asked for."""
    return [(term, text.format(guard=guard)) for term, text in SUITE_DEFINITIONS]


SUITE_DEFINITIONS = (
    (
        "Suite safe",
        "“Safe on average”: the smallest budget such that at it and every larger one the mean over tasks is proven to "
        "lose less than the margin, and every task less than the guard. All of these tests hold together, so none is "
        "adjusted for being one of many.",
    ),
    ("Guard", "The loss that no single task may have, {guard} here: wider than the margin, because a task is small."),
    (
        "Worst task's bound",
        "“No task loses more than”: the largest of the tasks' own upper bounds. It holds for all tasks together, "
        "however many there are.",
    ),
    (
        "Broken somewhere",
        "The largest budget such that at it and every smaller one a task is proven to lose more than the margin. The "
        "tasks are named, and their number is paid for (Holm).",
    ),
)


FAILURES = [
    (
        "TIMEOUT, ENGINE_ERROR",
        "The server or the way to it. Look at `kvt status` and the server's log; retry with "
        "`--retry-failed`. A loss made of these says nothing about quality.",
    ),
    ("CONTEXT_OVERFLOW", "The prompt did not fit. Lower `prompt.max_context_tokens` or serve a longer context."),
    (
        "EMPTY_OUTPUT, REFUSAL",
        "The model answered nothing or declined. If this grows as the budget shrinks, it is part of the collapse.",
    ),
    ("FORMAT_ERROR", "An answer that the metric cannot read. Look at some with `kvt show --sample 10`."),
    ("TRUNCATED", "Cut at `decoding.max_tokens` before a correct answer. Raise it before you blame the cache."),
    (
        "repetition loop, identical to full",
        "Flags, not failures: text that repeats itself, and the share of answers "
        "equal to full cache. Equal everywhere at a small budget suggests that the budget was not applied.",
    ),
]
