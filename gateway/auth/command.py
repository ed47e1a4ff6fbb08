"""The command `vitriton token`: make, list and revoke the tokens of `GATEWAY_TOKENS_FILE`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.auth.tokens import TokensError, new_token, read_tokens, write_tokens

_VARIABLE: Final = "GATEWAY_TOKENS_FILE"
_EXAMPLES: Final = f"""examples:
  vitriton token new alice --file tokens.jsonl
  {_VARIABLE}=tokens.jsonl vitriton token list
  vitriton token revoke alice --file tokens.jsonl

A running gateway applies the change to its next request.
"""


def main(argv: Sequence[str], default_file: Path | None) -> None:
    """Run one subcommand; exit code 1 for a failure, 2 for wrong usage.

    Args:
        argv: The arguments behind `vitriton token`.
        default_file: The file of tokens to use without `--file`.
    """
    parser = argparse.ArgumentParser(
        prog="vitriton token",
        description="Manage the tokens that the gateway accepts. Only their hashes are stored.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, description in (
        ("new", _new, "make a token and print it once"),
        ("list", _list, "list names and dates of the tokens"),
        ("revoke", _revoke, "remove a token"),
    ):
        command = commands.add_parser(
            name, help=description, description=f"{description.capitalize()}."
        )
        if name != "list":
            command.add_argument("name", metavar="NAME", help="name of the token")
        command.add_argument(
            "--file",
            type=Path,
            default=default_file,
            metavar="FILE",
            help=f"file of tokens (default: ${_VARIABLE})",
        )
        command.set_defaults(run=run)
    options = parser.parse_args(argv)
    if options.file is None:
        parser.error(f"name the file of tokens with --file or {_VARIABLE}")
    try:
        options.run(options)
    except TokensError as exc:
        print(f"vitriton: error: {exc}", file=sys.stderr)
        raise SystemExit(1) from exc


def _new(options: argparse.Namespace) -> None:
    path = Path(options.file)
    tokens = read_tokens(path) if path.exists() else []
    if any(token.name == options.name for token in tokens):
        raise TokensError(
            f"{path} has a token named {options.name}; revoke it or take another name"
        )
    token, stored = new_token(options.name)
    write_tokens(path, [*tokens, stored])
    print(token)
    print(f"stored in {path}; it cannot be shown again", file=sys.stderr)


def _list(options: argparse.Namespace) -> None:
    for token in read_tokens(Path(options.file)):
        print(f"{token.name}\t{token.created}")


def _revoke(options: argparse.Namespace) -> None:
    path = Path(options.file)
    tokens = read_tokens(path)
    kept = [token for token in tokens if token.name != options.name]
    if len(kept) == len(tokens):
        raise TokensError(f"{path} has no token named {options.name}")
    write_tokens(path, kept)
