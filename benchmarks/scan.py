"""
Forward and backward of the selective scan: the ways of hf_seqrec against what a user would pick instead.

    python benchmarks/scan.py [--threads 1] [--batch 16] [--lengths 200] [--channels 128] [--states 32] [--json FILE]
    python benchmarks/scan.py --batch 4 --lengths 50 200 1000 2000 5000 [--picture FILE]

Every way gets the same tensors and the same gradient; errors are against the definition in float64. One round runs
each way once at every length, so that a busy machine is unfair to none; the first round warms up and is not counted.
With several lengths, growth is the time per position over that of the way's shortest length: 1 where cost grows as the
length does. What would take longer than `--longest_call` is left out, and named: guessed from the length before, as if
time grew with the square.

Peak memory is what a process of its own needs over the inputs for one forward and backward, gradients included (Linux
only). mambapy and transformers are measured where they are installed; transformers' row is its whole Mamba block.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# Idle OpenMP threads that spin take the processor from whoever works. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_seqrec.models.op_backends import faster_op
from hf_seqrec.models.op_selective_scan import selective_scan_chunked, selective_scan_reference

Inputs = dict[str, Tensor]
# Seconds of the forward and of both passes, by length and way.
Times = dict[tuple[int, str], list[tuple[float, float]]]
# Too slow to run in every round.
SLOW = ("plain loop, x[:, t]", "transformers MambaMixer")


def make_inputs(b: int, length: int, d: int, n: int) -> Inputs:
    """Tensors as a freshly initialised Mamba block makes them."""
    torch.manual_seed(0)
    tensors = {
        "x": torch.randn(b, length, d),
        "delta": torch.randn(b, length, d) * 0.1,
        "A": -torch.arange(1.0, n + 1).repeat(d, 1),
        "B": torch.randn(b, length, n),
        "C": torch.randn(b, length, n),
        "D": torch.ones(d),
        "z": torch.randn(b, length, d),
        "delta_bias": torch.empty(d).uniform_(-6.9, -2.3),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def of_package(scan: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Inputs], Tensor]:
    """A scan with the package's signature."""
    return lambda inputs: scan(**inputs, delta_softplus=True)[0]


def plain_loop(inputs: Inputs, by_index: bool = False) -> Tensor:
    """The loop of the reference implementations, which discretise all positions first; with `x[:, t]` as they do."""
    x, A, B, C = (inputs[name] for name in "xABC")
    delta = F.softplus(inputs["delta"] + inputs["delta_bias"])
    decays = torch.exp(delta[..., None] * A)  # [b, l, d, n]
    written = (delta * x)[..., None] * B[:, :, None]
    state, outputs = torch.zeros_like(decays[:, 0]), []
    steps: Iterable[tuple[Tensor, Tensor, Tensor]]
    if by_index:
        steps = ((decays[:, t], written[:, t], C[:, t]) for t in range(x.shape[1]))
    else:
        steps = zip(decays.unbind(1), written.unbind(1), C.unbind(1), strict=True)
    for decay, written_t, C_t in steps:
        state = decay * state + written_t
        outputs.append((state * C_t[:, None]).sum(-1))
    return (torch.stack(outputs, dim=1) + inputs["D"] * x) * F.silu(inputs["z"])


def mambapy_scan(inputs: Inputs) -> Tensor:
    """The parallel scan of mambapy, with what its Mamba block does around it."""
    from mambapy.pscan import pscan

    x, A, B, C = (inputs[name] for name in "xABC")
    delta = F.softplus(inputs["delta"] + inputs["delta_bias"])
    states = pscan(torch.exp(delta[..., None] * A), delta[..., None] * B[:, :, None] * x[..., None])
    return ((states @ C[..., None]).squeeze(-1) + inputs["D"] * x) * F.silu(inputs["z"])


def transformers_mixer(inputs: Inputs) -> Tensor:
    """A whole Mamba block of transformers on a CPU, of the same sizes; its projections are a small part."""
    from transformers import MambaConfig, logging
    from transformers.models.mamba.modeling_mamba import MambaMixer

    # It warns that this is slow.
    logging.set_verbosity_error()
    (_, _, d), n = inputs["x"].shape, inputs["A"].shape[1]
    config = MambaConfig(hidden_size=d // 2, expand=2, state_size=n, num_hidden_layers=1)
    return MambaMixer(config, layer_idx=0)(inputs["x"][..., : d // 2])


def ways() -> dict[str, Callable[[Inputs], Tensor]]:
    """Every way that can run here; the fastest of the package first."""
    found: dict[str, Callable[[Inputs], Tensor]] = {}
    numba = faster_op("selective_scan", "cpu")
    if numba is not None:
        found["hf_seqrec numba"] = of_package(numba)
    found["hf_seqrec torch, chunked"] = of_package(selective_scan_chunked)
    found["hf_seqrec definition"] = of_package(selective_scan_reference)
    found["plain loop, unbind"] = plain_loop
    found[SLOW[0]] = functools.partial(plain_loop, by_index=True)
    if importlib.util.find_spec("mambapy"):
        found["mambapy pscan"] = mambapy_scan
    if importlib.util.find_spec("transformers"):
        found[SLOW[1]] = transformers_mixer
    return found


def run_once(way: Callable[[Inputs], Tensor], inputs: Inputs) -> tuple[float, float]:
    """Seconds of the forward and of both passes."""
    for tensor in inputs.values():
        tensor.grad = None
    start = time.perf_counter()
    y = way(inputs)
    forward = time.perf_counter() - start
    gradient = torch.ones_like(y)
    start = time.perf_counter()
    y.backward(gradient)
    return forward, forward + time.perf_counter() - start


def run_tiny(way: Callable[[Inputs], Tensor]) -> None:
    """Let libraries load and kernels compile; too small to leave memory behind that could be used again."""
    run_once(way, make_inputs(1, 2, 8, 4))


def relative_error(way: Callable[[Inputs], Tensor], inputs: Inputs) -> float:
    """Largest difference to the definition in float64, over the largest value."""
    with torch.no_grad():
        wanted, _ = selective_scan_reference(
            **{name: value.double() for name, value in inputs.items()}, delta_softplus=True
        )
        return ((way(inputs) - wanted).abs().max() / wanted.abs().max()).item()


def peak_megabytes(name: str, sizes: tuple[int, int, int, int]) -> float:
    """Peak memory over the inputs, of this process, which has done nothing else yet."""
    way = ways()[name]
    run_tiny(way)
    inputs = make_inputs(*sizes)
    # Resets the highest resident size on record.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run_once(way, inputs)
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure_peak(name: str, length: int, arguments: argparse.Namespace) -> float | None:
    """Peak memory in a process of its own; `None` where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    sizes = [arguments.batch, length, arguments.channels, arguments.states]
    options = ["--batch", "--lengths", "--channels", "--states"]
    command = [sys.executable, __file__, "--threads", str(arguments.threads), "--peak_of", name]
    for option, size in zip(options, sizes, strict=True):
        command += [option, str(size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def version(package: str) -> str | None:
    """Installed version of a package, `None` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def first_calls(
    found: dict[str, Callable[[Inputs], Tensor]], inputs: dict[int, Inputs], longest_call: float
) -> tuple[Times, list[dict]]:
    """Warm up every way at every length, where the slow ones have their only round, and find what takes too long."""
    times: Times = {}
    left_out = []
    for name, way in found.items():
        run_tiny(way)
        before: tuple[int, float] | None = None
        for length in inputs:
            if before is not None and before[1] * (length / before[0]) ** 2 > longest_call:
                left_out += [{"way": name, "length": longer} for longer in inputs if longer >= length]
                break
            once = run_once(way, inputs[length])
            before = length, once[1]
            times[length, name] = [once] if name in SLOW else []
    return times, left_out


def measure(arguments: argparse.Namespace) -> dict:
    """Time every way at every length in interleaved rounds, and weigh it."""
    b, d, n = arguments.batch, arguments.channels, arguments.states
    lengths = sorted(arguments.lengths)
    found = {name: way for name, way in ways().items() if name not in arguments.skip}
    inputs = {length: make_inputs(b, length, d, n) for length in lengths}
    times, left_out = first_calls(found, inputs, arguments.longest_call)
    for _ in range(arguments.rounds):
        for length, name in times:
            if name not in SLOW:
                times[length, name].append(run_once(found[name], inputs[length]))
    rows = []
    for length in lengths:
        for name, way in found.items():
            if (length, name) not in times:
                continue
            forward, both = zip(*times[length, name], strict=True)
            rows.append(
                {
                    "way": name,
                    "length": length,
                    "forward_ms": statistics.median(forward) * 1e3,
                    "forward_backward_ms": statistics.median(both) * 1e3,
                    "fastest_ms": min(both) * 1e3,
                    "rounds": len(both),
                    "input_mb": sum(tensor.nbytes for tensor in inputs[length].values()) / 2**20,
                    "peak_mb": measure_peak(name, length, arguments),
                    "error": None if name == SLOW[1] else relative_error(way, inputs[length]),
                }
            )
    fastest: dict[int, float] = {}
    shortest: dict[str, float] = {}
    for row in rows:
        milliseconds, a_position = row["forward_backward_ms"], row["forward_backward_ms"] / row["length"]
        # The first row of a length is of the package's fastest way.
        row["ratio"] = milliseconds / fastest.setdefault(row["length"], milliseconds)
        row["growth"] = a_position / shortest.setdefault(row["way"], a_position)
    return {
        "batch": b,
        "lengths": lengths,
        "channels": d,
        "states": n,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        # Of the last 1, 5 and 15 minutes: above the number of processors, others were at work.
        "load_average": os.getloadavg(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numba", "llvmlite", "mambapy", "transformers")},
        },
        "left_out": left_out,
        "rows": rows,
    }


def print_table(result: dict) -> None:
    """Print what `measure` found."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if number)
    print(f"Selective scan, float32, b {result['batch']}, d {result['channels']}, n {result['states']}; {versions}")
    print(f"{result['threads']} of {result['processors']} processors ({result['machine']})")
    for length in result["lengths"]:
        rows = [row for row in result["rows"] if row["length"] == length]
        inputs = f"l {length:,}, {rows[0]['input_mb']:.1f} MB of inputs" if rows else f"l {length:,}"
        print(f"{inputs:28}{'forward':>12}{'+ backward':>13}{'fastest':>13}{'ratio':>8}", end="")
        print(f"{'growth':>8}{'peak':>12}{'error':>8}{'rounds':>8}")
        for row in rows:
            peak = "-" if row["peak_mb"] is None else f"{row['peak_mb']:,.1f} MB"
            error = "-" if row["error"] is None else f"{row['error']:.0e}"
            times = "".join(f"{row[key]:10,.1f} ms" for key in ("forward_ms", "forward_backward_ms", "fastest_ms"))
            print(
                f"{row['way']:27}{times}{row['ratio']:8.1f}{row['growth']:8.2f}{peak:>12}{error:>8}{row['rounds']:8}"
            )
    for case in result["left_out"]:
        print(f"left out, for it would take too long: {case['way']} at length {case['length']:,}")


def draw(result: dict, path: Path) -> None:
    """Draw time and memory against the length."""
    from picture import draw_by_length

    rows = [
        {
            "way": row["way"],
            "length": row["length"],
            "positions": result["batch"] * row["length"],
            "seconds": row["forward_backward_ms"] / 1e3,
            "memory_bytes": None if row["peak_mb"] is None else row["peak_mb"] * 2**20,
        }
        for row in result["rows"]
    ]
    sizes = f"{result['batch']} histories, {result['threads']} thread(s)"
    draw_by_length(rows, f"Selective scan, forward and backward, {sizes}", path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lengths", type=int, nargs="+", default=[200])
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--states", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--skip", nargs="*", default=[], help="rows to leave out, by their names in the table")
    parser.add_argument("--longest_call", type=float, default=60.0, help="seconds a forward and backward may take")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--picture", type=Path, help="also draw it, as a .png or .svg")
    parser.add_argument("--peak_of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        sizes = (arguments.batch, arguments.lengths[0], arguments.channels, arguments.states)
        print(peak_megabytes(arguments.peak_of, sizes))
        return
    result = measure(arguments)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.picture:
        draw(result, arguments.picture)


if __name__ == "__main__":
    main()
