"""
Add the events of a log to a dataset folder. Items keep their rows and new ones come after them.

    python dataset_scripts/extend.py --raw yesterday.csv --output data/my-shop

A checkpoint that was trained on the folder before stays valid. Events that are there already are left out, so a log
may overlap with the last one.
"""

from hf_seqrec.data import extend_dataset
from hf_seqrec.data.raw_files import ENDINGS, RawFile
from hf_seqrec.data.script import open_source, parse, print_statistics, push_to_hub

# Compressed text is meant too.
WANTED = [f"*{ending}" for ending in ENDINGS if ending != ".item"]


def main() -> None:
    """Extend and say what came out."""
    paths, arguments, build_arguments = parse(__doc__)
    if paths.raw is None:
        raise ValueError("`--raw` must name the new events: files, a folder, an archive, a pattern or an address.")
    with open_source(paths, "interactions", WANTED) as (source, _):
        raw = RawFile.open(source.take(*WANTED))
        folder = extend_dataset(paths.output, raw, arguments, build_arguments, progress=True)
    print_statistics(folder)
    if paths.push_to_hub is not None:
        print(push_to_hub(folder, paths.push_to_hub))


if __name__ == "__main__":
    main()
