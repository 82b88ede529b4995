"""
Build a dataset folder from any log of interactions: .inter (RecBole), .csv, .tsv, .jsonl, .json or .parquet.

    python dataset_scripts/interactions.py --raw log.csv --output data/my-shop --min_user_events 5 --min_item_events 5
    python dataset_scripts/interactions.py --raw "logs/2024-*.csv.gz" --output data/my-shop --rating_threshold 4

Several files of the same columns are one log, in the order given (a pattern's files by name). Events are ordered by
time, those of the same time by their position in the log.
"""

from hf_seqrec.data.dataset_card import About
from hf_seqrec.data.raw_files import ENDINGS, RawFile
from hf_seqrec.data.script import build, open_source, parse

# Compressed text is meant too.
WANTED = [f"*{ending}" for ending in ENDINGS if ending != ".item"]


def main() -> None:
    """Build and say what came out."""
    paths, arguments, build_arguments = parse(__doc__)
    if paths.raw is None:
        raise ValueError("`--raw` must name the log: files, a folder, an archive, a pattern or an address.")
    with open_source(paths, "interactions", WANTED) as (source, _):
        raw = RawFile.open(source.take(*WANTED))
        build(raw, paths, arguments, build_arguments, About(raw.stem))


if __name__ == "__main__":
    main()
