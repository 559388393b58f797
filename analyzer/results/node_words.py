"""What is said of the servers of several shards of levels: alike as far as can be told, or not. Pure."""

from analyzer.read.node_answers import NodeAnswers
from analyzer.results.number_format import listed
from analyzer.results.results import Results


def unlike_nodes(results: Results) -> list[NodeAnswers]:
    """Shards on whose servers full cache gives other answers than on the baseline's own: proven at alpha / 2, over all
    shards together (Bonferroni)."""
    alpha = next((v.asked["alpha"] for v in results.verdicts if "alpha" in v.asked), 0.05)
    return [node for node in results.nodes if node.p <= alpha / 2 / len(results.nodes)]


def node_sentence(results: Results) -> str:
    """How the servers compare; empty where the group was not sent in shards of levels."""
    if not results.nodes:
        return ""
    changed = listed([f"{node.changed:,} of {node.n:,} on shard {node.shard}'s" for node in results.nodes])
    alike = "" if unlike_nodes(results) else ": no difference between the servers can be seen"
    return (
        f"Levels were sent by several shards. At full cache, answers that differ from the baseline's: {changed} "
        f"server, {results.nodes[0].changed_again:,} when its own server was asked again{alike}."
    )
