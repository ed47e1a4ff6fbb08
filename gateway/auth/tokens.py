"""Check tokens against a file of salted hashes, which is read again when it changes.

A line of the file is JSON: name, salt, hash and date of a token. Tokens have 256 random bits and
cannot be guessed, so one round of SHA-256 is enough (RFC 4086 §8.2).
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

log = logging.getLogger("gateway")

# HF's own documentation has printed the scheme with a colon.
_BEARER: Final = re.compile(r"bearer:?[ \t]+(\S+)[ \t]*", re.IGNORECASE)

_PREFIX: Final = "vtn_"
_TOKEN_BYTES: Final = 32
_SALT_BYTES: Final = 16
_PRIVATE: Final = 0o600


class TokensError(ValueError):
    """The file of tokens cannot be used; the message is one line and holds no token."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """One line of the file: a token's hash, never the token itself."""

    name: str
    salt: str
    """Hexadecimal."""
    sha256: str
    """Of salt and token, hexadecimal."""
    created: str
    """ISO 8601, UTC."""


def new_token(name: str) -> tuple[str, StoredToken]:
    """Make a token. Returns the token, which is not stored, and its line for the file."""
    token = _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    salt = secrets.token_hex(_SALT_BYTES)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return token, StoredToken(name, salt, _hash(salt, token), created)


def _hash(salt: str, token: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + token.encode()).hexdigest()


def is_one_of(token: str, stored: Sequence[StoredToken]) -> bool:
    """Whether the token is one of the stored ones. The time does not depend on the answer."""
    matches = [hmac.compare_digest(_hash(entry.salt, token), entry.sha256) for entry in stored]
    return any(matches)


def bearer_token(authorization: str) -> str | None:
    """The token of an `Authorization` header; None if the header has another form."""
    match = _BEARER.fullmatch(authorization.strip())
    return match[1] if match else None


def read_tokens(path: Path) -> list[StoredToken]:
    """The tokens of a file.

    Raises:
        TokensError: The file cannot be read, or a line is not a token.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise TokensError(f"{path} cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    return [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def _parse(line: str, where: str) -> StoredToken:
    try:
        token = StoredToken(**json.loads(line))
        bytes.fromhex(token.salt)
        bytes.fromhex(token.sha256)
    except (ValueError, TypeError) as exc:
        raise TokensError(f"{where} is not a token that `vitriton token new` wrote") from exc
    return token


def write_tokens(path: Path, tokens: Sequence[StoredToken]) -> None:
    """Replace the file in one step. Only its owner may read the new one.

    Raises:
        TokensError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.writelines(json.dumps(asdict(token)) + "\n" for token in tokens)
        Path(file.name).chmod(_PRIVATE)
        Path(file.name).replace(path)
    except OSError as exc:
        raise TokensError(f"{path} cannot be written: {exc.strerror}") from exc


class TokensFile:
    """The tokens of a file, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Read the file for the first time.

        Raises:
            TokensError: See `read_tokens`.
        """
        self._path = path
        self._version = _file_version(path)
        self._tokens = read_tokens(path)

    def accepts(self, token: str) -> bool:
        """Whether the token is in the file now.

        If a changed file cannot be used, one line is logged and the tokens read last stay valid.
        """
        version = _file_version(self._path)
        if version != self._version:
            self._version = version
            try:
                self._tokens = read_tokens(self._path)
            except TokensError as exc:
                log.error("the previous tokens stay valid: %s", exc)
        return is_one_of(token, self._tokens)


def _file_version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - runs on every request; Path.stat costs thrice as much
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
