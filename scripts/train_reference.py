"""Train the reference model from nothing and write its folder.

Needs the `train` extra (torch) and 10 to 20 minutes of one CPU core, evaluation included.

    python scripts/train_reference.py                                                 # into build/reference
    python scripts/train_reference.py --out kvt_async/serve/reference --evaluate-only
    python scripts/train_reference.py --recipe recall --out build/recall              # a variant: reference/recall.py
    python scripts/train_reference.py --recipe recite --out build/recite              # another: reference/recite.py
"""

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

import torch
from reference.card import Made, card, recite_card
from reference.evaluation import WHOLE, Cell, evaluate, evaluate_recite, with_system
from reference.folder import load_weights, write_model_files
from reference.network import Shape
from reference.recall import train_recall
from reference.recite import train_recite
from reference.training import train

from kvt_async.data.sources import kvtext_words as words

BAR = 0.97
SHIPPED = Path(__file__).resolve().parents[1] / "kvt_async/serve/reference"
RECALL_CARD = """# recall

kvt's reference model, trained further by `scripts/train_reference.py --recipe recall` on rows whose text comes back to
its facts, with answers of four values. Made to compare eviction policies that don't see the question; it finds the
first three values of an answer (kvtext with `value_tokens: 3`, `metric: string_match_all`) up to 512 tokens.
Weights SHA-256 {sha256}.
"""


def main() -> int:
    options = options_from_command_line()
    torch.set_num_threads(options.threads)
    shape = Shape(vocab_size=len(words.VOCABULARY))
    if options.recipe != "reference" and options.out.resolve() == SHIPPED:
        print("a variant is no replacement of the shipped model: choose another --out")
        return 2
    if options.recipe == "recall":
        return recall(shape, options.out)
    if options.recipe == "recite":
        return recite(shape, options)
    if options.evaluate_only:
        return verdict(evaluate(load_weights(shape, options.out), options.examples))
    model, record = train(shape, options.seed)
    weights_sha256 = write_model_files(model, options.out)
    model = load_weights(shape, options.out)  # what is measured is what was written: float16 weights
    cells, system = evaluate(model, options.examples), with_system(model, options.examples)
    made = Made(record, options.threads, weights_sha256, vocabulary_sha256())
    (options.out / "README.md").write_text(card(model, made, cells, system), encoding="utf-8")
    return verdict(cells)


def recall(shape: Shape, out: Path) -> int:
    """Train the variant from the shipped weights and write its folder."""
    weights_sha256 = write_model_files(train_recall(load_weights(shape, SHIPPED).train().requires_grad_()), out)
    (out / "README.md").write_text(RECALL_CARD.format(sha256=weights_sha256), encoding="utf-8")
    return 0


def recite(shape: Shape, options: argparse.Namespace) -> int:
    """Train the variant that ships as reference-recite from the shipped weights, and write its folder."""
    if options.evaluate_only:
        return verdict(evaluate_recite(load_weights(shape, options.out), options.examples))
    model = load_weights(shape, SHIPPED).train().requires_grad_()
    record = train_recite(model, options.seed)
    weights_sha256 = write_model_files(model, options.out, max_new_tokens=320)
    made = Made(record, options.threads, weights_sha256, vocabulary_sha256())
    cells = evaluate_recite(model := load_weights(shape, options.out), options.examples)
    first = hashlib.sha256((SHIPPED / "model.safetensors").read_bytes()).hexdigest()
    (options.out / "README.md").write_text(recite_card(model, made, cells, first), encoding="utf-8")
    return verdict(cells)


def vocabulary_sha256() -> str:
    return hashlib.sha256("\n".join(words.VOCABULARY).encode()).hexdigest()


def verdict(cells: list[Cell]) -> int:
    """Print the worst cell; 0 if it passes the bar, else 1. A long answer need not be right in every token."""
    worst = min((cell for cell in cells if cell.task != WHOLE), key=lambda cell: cell.accuracy)
    print(f"worst cell: {worst.task} at {worst.tokens} tokens, exact match {worst.accuracy:.3f}")
    if worst.accuracy >= BAR:
        return 0
    print(f"below the bar of {BAR}: not good enough to ship; try another --seed")
    return 1


def options_from_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/reference"),
        help="the model folder to write, or to read with --evaluate-only (default: %(default)s, so that the shipped "
        "weights stay until you replace them)",
    )
    parser.add_argument("--recipe", choices=("reference", "recall", "recite"), default="reference")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--threads", type=int, default=1, help="the weights depend on it; the shipped ones used 1")
    parser.add_argument("--examples", type=int, default=200, help="evaluated per task and length")
    parser.add_argument("--evaluate-only", action="store_true", help="measure the weights in --out, change nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
