"""The structure of the package, counted from its imports: rooms, arrows, and what may not import what."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "hf_seqrec"

# Which rooms a room may not import, directly; no room imports `cli`.
FORBIDDEN = {
    "ops": {"*"},
    "metrics": {"*"},
    "data": {"*"},
    "models": {"*", "-ops"},
    "baselines": {"*", "-data", "-metrics"},
    "ingest": {"models", "training", "evaluation", "checkpoints", "inference", "serving", "hub"},
    "evaluation": {"ingest", "checkpoints", "training", "inference", "serving", "hub"},
    "checkpoints": {"hub", "training", "inference", "serving"},
    "inference": {"evaluation", "training", "serving", "hub", "ingest"},
    "hub": {"ingest", "training", "inference", "serving"},
    "serving": {"training", "evaluation", "hub", "ingest"},
    "training": {"inference", "serving"},
}


def room(module: str) -> str:
    """Return the room of a module `hf_seqrec.a.b`: its folder, or the module's own name at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "hf_seqrec"


def imports(path: Path) -> Iterator[str]:
    """Yield every module of the package that a file imports, at the top, in functions or for types."""
    package = ["hf_seqrec", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            yield ".".join(base + (node.module.split(".") if node.module else [a.name for a in node.names][:1]))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_seqrec"):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("hf_seqrec."))


def arrows() -> dict[tuple[str, str], list[str]]:
    """Return the arrows between rooms, each with the imports that make it; the public table is no arrow."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.relative_to(PACKAGE.parent).with_suffix("")
        module = ".".join(source.parts).removesuffix(".__init__")
        if module == "hf_seqrec":
            continue
        for target in imports(path):
            if room(target) not in (room(module), "hf_seqrec"):
                found[room(module), room(target)].append(f"{module} imports {target}")
    return dict(found)


def circles(pairs: set[tuple[str, str]]) -> list[str]:
    """Return the rooms from which arrows lead back to themselves."""
    reached = {source: {target for s, target in pairs if s == source} for source, _ in pairs}
    for _ in reached:
        for targets in reached.values():
            targets |= {far for target in targets for far in reached.get(target, set())}
    return sorted(source for source, targets in reached.items() if source in targets)


def forbidden(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arrows that the law does not allow."""
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}

    def is_forbidden(source: str, target: str) -> bool:
        law = FORBIDDEN.get(source, set())
        return target in rooms and (target == "cli" or target in law or ("*" in law and f"-{target}" not in law))

    return sorted(
        (source, target) for source, target in pairs if source != "__main__" and is_forbidden(source, target)
    )
