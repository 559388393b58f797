"""What charts are called in a word, beside the names of their files."""

SHORT = {
    "verdict": "verdict_by_budget",
    "accuracy": "acc_by_budget",
    "lengths": "acc_by_budget_bins",
    "heatmap": "heatmap_budget_length",
    "kept": "acc_by_kept_tokens",
    "loss": "drop_decomposition",
    "cost": "pareto",
    "latency": "ttft_tpot_by_budget",
    "failures": "fail_by_bin",
}
SHORT_OF_SUITE = {"tasks": "verdict_by_task", "map": "task_budget_map"}
