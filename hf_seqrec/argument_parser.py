"""
The parser of every command: transformers' `HfArgumentParser`, with one way to say each thing.

- A mistake on the command line is a `ValueError`, like every other mistake of a user.
- A switch is `--flag` or `--no-flag`; `--flag true` and `--flag false`, as recipes have it, mean the same.
- A value may begin with one dash, as raw item ids sometimes do.
"""

import argparse
import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from transformers.hf_argparser import HfArgumentParser

_TRUTH_VALUES = {"true", "false", "yes", "no", "t", "f", "y", "n", "1", "0"}


class CommandParser(HfArgumentParser):
    r"""
    A parser whose help is the docstring of its command.

    Args:
        prog (`str`): The command, as in `"hf-seqrec recommend"`.
        doc (`str`): First line: what the command does. The rest: examples, and what else its help should say.
        records (`Sequence[type]`, *optional*): Dataclasses whose fields are options.
        kwargs: Further arguments of [`argparse.ArgumentParser`].
    """

    def __init__(self, prog: str, doc: str = "", records: Sequence[Any] = (), **kwargs: Any) -> None:
        description, _, epilog = doc.strip().partition("\n")
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(list(records), prog=prog, description=description, epilog=epilog.strip("\n"), **kwargs)
        # What argparse takes for a negative number is a value. After `super()`, which has added `-h`.
        self._negative_number_matcher = re.compile(r"-[^-]")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print together with the usage."""
        unknown = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        raise ValueError(f"{message.rstrip('.')}. {self.advice(unknown)}")

    def advice(self, unknown: Sequence[str]) -> str:
        """Say which option the first unknown one may stand for, or where all are listed."""
        options = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        nearest = difflib.get_close_matches(options[0], self._option_string_actions, n=1) if options else []
        return f"Did you mean `{nearest[0]}`?" if nearest else f"`{self.prog} --help` lists the options."

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with switches that do not swallow the word behind them."""
        return super().parse_known_args(None if args is None else self._with_true(list(args)), namespace)

    def parse_args_into_dataclasses(  # type: ignore[override]  # without the files of arguments
        self, args: Sequence[str] | None = None, return_remaining_strings: bool = False
    ) -> tuple[Any, ...]:
        """Parse into the records, and a namespace where there are other arguments."""
        *parsed, unknown = super().parse_args_into_dataclasses(
            args, return_remaining_strings=True, look_for_args_file=False
        )
        if return_remaining_strings:
            return (*parsed, unknown)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return tuple(parsed)

    def _with_true(self, words: list[str]) -> list[str]:
        """Write `--flag word` as `--flag=true word`, unless the word is a truth value."""
        for place, word in enumerate(words[:-1]):
            following = words[place + 1]
            action = self._option_string_actions.get(word)
            is_switch = action is not None and action.nargs == "?" and action.const is True
            if is_switch and not following.startswith("--") and following.lower() not in _TRUTH_VALUES:
                words[place] = f"{word}=true"
        return words

    def _get_option_tuples(self, option_string: str) -> Any:
        """Find options that a word abbreviates. `-h12` is an id, not `-h`."""
        return super()._get_option_tuples(option_string) if option_string.startswith("--") else []

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
        HfArgumentParser._parse_dataclass_field(parser, field)
        if field.type not in (bool, bool | None) or field.default is True:
            return
        action = parser._option_string_actions[f"--{field.name}"]
        action.nargs, action.const = "?", True
        names = dict.fromkeys([f"--no_{field.name}", f"--no-{field.name.replace('_', '-')}"])
        parser.add_argument(
            *names, action="store_false", dest=field.name, default=field.default, help=argparse.SUPPRESS
        )


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)
