"""Signatures of bundles: who may say that a bundle is to serve, where not everybody who can write the registry may.

A signature is ed25519 over the model's name and the sha256 of the bundle's manifest, which names the sha256 of every
file. Keys are PEM files, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KIND = "ed25519:"
SIGN = "sign it with `recdistill sign MODEL --version N --key KEY.pem`, or serve a version that is signed"


def sign(key: Path, model: str, digest: str) -> str:
    """Return the signature, by the private key in the PEM file `key`, of the bundle of `model` with this manifest.

    `digest` is the sha256 of the manifest, as hex. Raises ConfigError if the file is missing or no such key.
    """
    return KIND + base64.b64encode(_private(key).sign(_message(model, digest))).decode()


def check(signature: str | None, model: str, digest: str, trust: Sequence[str | Path], where: str) -> None:
    """Raise ArtifactError unless `signature` is by one of the public keys in the PEM files `trust`.

    With no such files nothing is asked. Raises ConfigError if one is missing or no such key.
    """
    if trust and not holds(signature, model, digest, trust):
        what = "is not signed" if not signature else "is not signed by a key that is trusted here"
        raise ArtifactError(f"the bundle {what} (registry.trust, --trust)", where=where, fix=SIGN)


def holds(signature: str | None, model: str, digest: str, trust: Sequence[str | Path]) -> bool:
    """Say whether `signature` is by one of the keys in `trust`; of no keys, that it need not be."""
    from cryptography.exceptions import InvalidSignature

    keys = [_public(Path(file)) for file in trust]  # all of them first: a file that is none is told whatever is signed
    if not keys:
        return True
    if not signature or not signature.startswith(KIND):
        return False
    try:
        given = base64.b64decode(signature.removeprefix(KIND), validate=True)
    except (binascii.Error, ValueError):
        return False
    for key in keys:
        try:
            key.verify(given, _message(model, digest))
            return True
        except InvalidSignature:
            continue
    return False


def ready(key: str | Path | None, trust: Sequence[str | Path]) -> None:
    """Raise ConfigError unless every key can be read: before a run, not at its end."""
    if key is not None:
        _private(Path(key))
    for file in trust:
        _public(Path(file))


def _message(model: str, digest: str) -> bytes:
    return f"recdistill bundle\n{model}\n{digest}\n".encode()


def _private(file: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError, _unsupported()) as cause:
        raise ConfigError(f"no private key that can be read ({cause})", where=str(file), fix=_MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("a private key, but not of ed25519", where=str(file), fix=_MAKE)
    return key


def _public(file: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(file))
    except (ValueError, _unsupported()) as cause:
        raise ConfigError(f"no public key that can be read ({cause})", where=str(file), fix=_MAKE) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("a public key, but not of ed25519", where=str(file), fix=_MAKE)
    return key


_MAKE = (
    "make one with `openssl genpkey -algorithm ed25519 -out KEY.pem`, and its public half with `openssl pkey -pubout`"
)


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as cause:
        raise ConfigError(f"the key cannot be read: {cause.strerror}", where=str(file), fix=_MAKE) from None
