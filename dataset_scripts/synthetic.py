"""
Write the synthetic dataset as a folder: made-up histories whose best reachable metrics are known.

    python dataset_scripts/synthetic.py --output data/synthetic --n_users 3000 --seed 0
"""

import argparse

from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.synthetic import build_synthetic


def main() -> None:
    """Build and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--output", required=True, help="The dataset folder. An earlier dataset there is replaced.")
    parser.add_argument("--n_users", type=int, default=3000)
    parser.add_argument("--n_items", type=int, default=500, help="A multiple of 20, at least 200.")
    parser.add_argument("--mean_length", type=float, default=40.0, help="About how many events a user has.")
    parser.add_argument(
        "--keep_unread_items", action="store_true", help="List items in the catalog that nobody has read, too."
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = build_synthetic(**vars(arguments))
    sequences = load_sequences(folder)
    reachable = sequences.statistics["reachable"]
    print(f"{folder}: {sequences}")
    for metric in ("hr@10", "ndcg@10"):
        print(f"test {metric}: best reachable {reachable[metric]:.4f}")


if __name__ == "__main__":
    main()
