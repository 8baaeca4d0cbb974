"""Keys for one purpose each, derived from one secret by HKDF-SHA-256 (RFC 5869)."""

import hmac


def extract(secret: bytes) -> bytes:
    """Return the key material from which `expand` makes keys.

    The secret is hashed as a message. As an HMAC key, `k` and `k\\0` would be the same, and so would a long secret
    and its hash.
    """
    return hmac.digest(b"prism_wsgi", secret, "sha256")


def expand(extracted: bytes, *purpose: bytes) -> bytes:
    """Return the key of 32 bytes for a purpose of any number of parts.

    Each part carries its length, so that no two purposes become the same bytes (CVE-2019-10911).
    """
    framed = b"".join(len(part).to_bytes(2, "big") + part for part in purpose)
    return hmac.digest(extracted, framed + b"\x01", "sha256")
