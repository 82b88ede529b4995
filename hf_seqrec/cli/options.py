"""Options that several commands have, each spelled and checked in one place."""

import argparse
import socket

import torch


def add_checkpoint(parser: argparse.ArgumentParser, is_optional: bool = False) -> None:
    """Add the checkpoint, a positional argument of every command that takes one, and `--revision`."""
    nargs = "?" if is_optional else None
    parser.add_argument("checkpoint", nargs=nargs, help="A checkpoint folder or the id of a model on the Hub.")
    parser.add_argument("--revision", help="Branch, tag or commit on the Hub.")


def add_switch(parser: argparse.ArgumentParser, name: str, default: bool | None = False, help: str = "") -> None:
    """Add `--name` and `--no-name`."""
    options = [f"--{name}", f"--{name.replace('_', '-')}"]
    parser.add_argument(
        *dict.fromkeys(options), dest=name, action=argparse.BooleanOptionalAction, default=default, help=help
    )


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add `--host` and `--port`."""
    parser.add_argument("--host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 for the whole network.")
    parser.add_argument("--port", type=int, default=port, help="Port to listen at.")


def check_address(host: str, port: int) -> None:
    """
    Raise where nothing can listen at an address, before a model is loaded for it.

    Raises:
        ValueError: if there is no such port or host, it is taken, or it is not for this user.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"`--port` must be between 1 and 65535, got {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ValueError(
            f"`--host` {host} and `--port` {port} must be an address to listen at: {error.strerror or error}. "
            "Choose another `--port`."
        ) from error


def check_device(name: str) -> None:
    """
    Raise where a device is not there, before anything is loaded for it.

    Raises:
        ValueError: if torch knows no such device, or cannot use it.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"`--device` must be one that torch can use here, such as cpu, got {name!r}: {reason}"
        ) from error
