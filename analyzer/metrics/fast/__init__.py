"""Metrics over whole columns: the scores of the rule for one answer, several times sooner. A metric needs none of this:
without a column rule it is called answer by answer. Tests hold the two rules against each other.

Which rule runs for which metric:

- em, f1: `overlap.overlap_scores`, for every outcome.
- qa_f1, qa_f1_first_line, squad_em, squad_f1: `task_metric` over columns where answer and golds are printable ASCII;
  the other answers one by one.
- count, retrieval, retrieval_zh: `column_rules`, for every answer.
- string_match_all, string_match_part: `column_rules` where the answer is ASCII and every gold printable ASCII without
  white space at its ends; the other answers one by one.
- classification and its variants: `column_rules` where the answers have at most four lists of classes, each of distinct
  names; with more lists, or for a list with odd names, one by one.
- every other metric: `row_scorer`, which calls the metric once for each distinct answer, and in several processes
  where more than four seconds of work are left.

`task_metric.task_scores` chooses; it also cuts the answer to its first line where the metric wants that.
"""
