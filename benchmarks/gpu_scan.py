"""
The selective scan on a GPU: Triton, the chunked torch form and, where its extension is built, mamba-ssm.

    python benchmarks/gpu_scan.py --json gpu_scan.json

Prints, for every shape, state size and dtype, the median milliseconds of forward and of forward + backward, the share
of the computed floor, the peak memory over the inputs, and how many times the Triton scan each backend takes. All
backends of a line take turns in one run. Inputs lie as a Mamba block makes them: x and z are halves of one projection,
B and C slices of another.

The floor is computed, not measured: the larger of the bytes that must move (each input read once, each output written
once) over 4.3 TB/s, and the exponentials (one for each state of each position, two with the backward) over 16 a clock
and multiprocessor at 1.98 GHz. Both rates are an H200's.
"""

import argparse
import gc
import importlib
import json
import platform
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_seqrec.models.op_causal_conv import causal_conv1d_reference
from hf_seqrec.models.op_selective_scan import selective_scan_chunked

SHAPES = ((2048, 200), (64, 2000), (16, 5000))
BYTES_PER_MS = 4.3e9
EXPONENTIALS_PER_MS = 132 * 16 * 1.98e6

Loss = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--width", type=int, default=128, help="channels (d_inner)")
    parser.add_argument("--state-sizes", type=int, nargs="+", default=[32, 16])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--backends", nargs="+", default=["triton", "mamba_ssm", "mamba_ssm kernel", "chunked"])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("`gpu_scan.py` needs a CUDA device. On a CPU run benchmarks/scan.py.")

    scans = available_scans(arguments.backends)
    results = []
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {version('triton')}")
    columns = ("shape", 12), ("n", 3), ("dtype", 8), ("backend", 16), ("| fwd ms", 10), ("floor", 6), ("| fwd+bwd", 10)
    more = ("floor", 6), ("| x triton", 10), ("| peak MB", 10), ("reserved", 8)
    print(" ".join(f"{title:>{size}}" for title, size in (*columns, *more)))
    for dtype in (getattr(torch, name) for name in arguments.dtypes):
        for n in arguments.state_sizes:
            for b, length in SHAPES:
                rows = compare_scans(scans, b, length, arguments.width, n, dtype, arguments.repeats)
                results += rows
                for row in rows:
                    print_scan(row)
        for b, length in SHAPES:
            row = compare_convolutions(b, length, arguments.width, dtype, arguments.repeats)
            results.append(row)
            print(
                f"{b:>6}x{length:<5} {'':>3} {row['dtype']:>8} {'convolution':>16} | fwd {row['forward_ms']:.3f} "
                f"fwd+bwd {row['forward_backward_ms']:.3f} ms, floors {row['forward_floor_share']:.0%} "
                f"{row['forward_backward_floor_share']:.0%}; torch conv1d x{row['conv1d_ratio']:.1f}",
                flush=True,
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")


def available_scans(names: list[str]) -> dict[str, Callable]:
    """Each backend by name; those whose extension is missing are left out, and said so."""
    scans: dict[str, Callable] = {}
    for name in names:
        if name == "chunked":
            scans[name] = selective_scan_chunked
            continue
        try:
            module = importlib.import_module(f"hf_seqrec.ops.{name.removesuffix(' kernel')}_scan")
        except ImportError as error:
            print(f"without {name}: {error}")
            continue
        scans[name] = getattr(module, "selective_scan_fn" if name.endswith("kernel") else "selective_scan")
    return scans


def scan_inputs(b: int, length: int, d: int, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda")

    x, z = normal(b, length, 2 * d).to(dtype).chunk(2, dim=-1)
    _, B, C = normal(b, length, 4 + 2 * n).to(dtype).split([4, n, n], dim=-1)
    inputs = {
        "x": x,
        "delta": normal(b, length, d).to(dtype),
        "A": -torch.arange(1, n + 1, device="cuda").float().repeat(d, 1),
        "B": B,
        "C": C,
        "D": normal(d),
        "z": z,
        "delta_bias": normal(d) - 4,
    }
    return {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}


def compare_scans(
    scans: dict[str, Callable], b: int, length: int, d: int, n: int, dtype: torch.dtype, repeats: int
) -> list[dict[str, Any]]:
    inputs = scan_inputs(b, length, d, n, dtype)
    grad = torch.randn(b, length, d, device="cuda").to(dtype)
    floors = scan_floors(b * length * d, b * length * n, n, dtype.itemsize)
    passes: dict[str, tuple[Loss, Loss]] = {}
    for name, scan in scans.items():
        leaves = inputs
        out_grad = grad
        if name.endswith("kernel"):
            # As its authors call it: everything already lies as (b, d, l).
            leaves = {
                "u" if key == "x" else key: tensor.detach().transpose(1, 2).contiguous().requires_grad_()
                if tensor.dim() == 3
                else tensor
                for key, tensor in inputs.items()
            }
            out_grad = grad.transpose(1, 2).contiguous()
        passes[name] = scan_passes(scan, leaves, out_grad)
    forward = measure({name: pair[0] for name, pair in passes.items()}, repeats)
    both = measure({name: pair[1] for name, pair in passes.items()}, repeats)
    return [
        {
            "op": "selective_scan",
            "backend": name,
            "b": b,
            "l": length,
            "d": d,
            "n": n,
            "dtype": str(dtype).removeprefix("torch."),
            "forward_ms": forward[name],
            "forward_backward_ms": both[name],
            "forward_floor_share_computed": floors[0] / forward[name],
            "forward_backward_floor_share_computed": floors[1] / both[name],
            "times_triton_forward": forward[name] / forward["triton"] if "triton" in forward else None,
            "times_triton": both[name] / both["triton"] if "triton" in both else None,
            **peak_memory(passes[name][1]),
        }
        for name in scans
    ]


def scan_passes(scan: Callable, leaves: dict[str, Tensor], grad: Tensor) -> tuple[Loss, Loss]:
    def run() -> Tensor:
        out = scan(**leaves, delta_softplus=True)
        return out[0] if isinstance(out, tuple) else out

    def forward() -> None:
        with torch.no_grad():
            run()

    def forward_backward() -> None:
        torch.autograd.grad(run(), list(leaves.values()), grad)

    return forward, forward_backward


def scan_floors(channels: int, states: int, n: int, itemsize: int) -> tuple[float, float]:
    """Milliseconds that no forward, and no forward + backward, can go under."""
    read = (3 * channels + 2 * states) * itemsize  # x, delta, z; B, C
    forward = max((read + channels * itemsize) / BYTES_PER_MS, channels * n / EXPONENTIALS_PER_MS)
    moved = (read + channels * itemsize) + (read + channels * itemsize) + read  # forward; its inputs and grad_y; grads
    return forward, max(moved / BYTES_PER_MS, 2 * channels * n / EXPONENTIALS_PER_MS)


def compare_convolutions(b: int, length: int, d: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    from hf_seqrec.ops.triton_conv import causal_conv1d

    x = torch.randn(b, length, 2 * d, device="cuda").to(dtype).chunk(2, dim=-1)[0].detach().requires_grad_()
    weight = torch.randn(d, 4, device="cuda").to(dtype).requires_grad_()
    bias = torch.randn(d, device="cuda").to(dtype).requires_grad_()
    grad = torch.randn(b, length, d, device="cuda").to(dtype)

    def conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = torch.nn.functional.conv1d(x.transpose(1, 2), weight[:, None], bias, padding=3, groups=d)
        return torch.nn.functional.silu(y[..., :length]).transpose(1, 2)

    functions: dict[str, Callable] = {
        "triton": lambda: causal_conv1d(x, weight, bias, "silu"),
        "conv1d": lambda: conv1d(x, weight, bias),
        "reference": lambda: causal_conv1d_reference(x, weight, bias, "silu"),
    }

    def without_graph(function: Callable) -> Loss:
        def run() -> None:
            with torch.no_grad():
                function()

        return run

    def with_gradient(function: Callable) -> Loss:
        def run() -> None:
            torch.autograd.grad(function(), (x, weight, bias), grad)

        return run

    forward = measure({name: without_graph(function) for name, function in functions.items()}, repeats)
    both = measure({name: with_gradient(function) for name, function in functions.items()}, repeats)
    moved = b * length * d * dtype.itemsize
    return {
        "op": "causal_conv1d",
        "b": b,
        "l": length,
        "d": d,
        "dtype": str(dtype).removeprefix("torch."),
        "forward_ms": forward["triton"],
        "forward_backward_ms": both["triton"],
        "forward_floor_share": 2 * moved / BYTES_PER_MS / forward["triton"],
        "forward_backward_floor_share": 5 * moved / BYTES_PER_MS / both["triton"],
        "conv1d_ratio": both["conv1d"] / both["triton"],
        "shifted_adds_ratio": both["reference"] / both["triton"],
    }


def measure(functions: dict[str, Loss], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, taking turns; slow ones take fewer turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    turns = {}
    for name, function in functions.items():
        function()
        function()
        turns[name] = max(3, min(repeats, int(1500 / milliseconds(function))))
    for turn in range(repeats):
        for name, function in functions.items():
            if turn < turns[name]:
                times[name].append(milliseconds(function))
    return {name: statistics.median(found) for name, found in times.items()}


def milliseconds(function: Loss) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def peak_memory(function: Loss) -> dict[str, float]:
    """MB that a call takes at its peak, over what is there before: allocated, and reserved by the allocator."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    function()
    torch.cuda.synchronize()
    return {
        "peak_allocated_mb": (torch.cuda.max_memory_allocated() - allocated) / 2**20,
        "peak_reserved_mb": (torch.cuda.max_memory_reserved() - reserved) / 2**20,
    }


def print_scan(row: dict[str, Any]) -> None:
    ratio = "" if row["times_triton"] is None else f"{row['times_triton']:.2f}"
    print(
        f"{row['b']:>6}x{row['l']:<5} {row['n']:>3} {row['dtype']:>8} {row['backend']:>16} |"
        f" {row['forward_ms']:>8.3f} {row['forward_floor_share_computed']:>6.0%} |"
        f" {row['forward_backward_ms']:>8.3f} {row['forward_backward_floor_share_computed']:>6.0%} |"
        f" {ratio:>8} | {row['peak_allocated_mb']:>8.0f} {row['peak_reserved_mb']:>8.0f}",
        flush=True,
    )


def version(package: str) -> str:
    try:
        return str(importlib.import_module(package).__version__)
    except ImportError:
        return "absent"


def machine() -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "triton": version("triton"),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


if __name__ == "__main__":
    main()
