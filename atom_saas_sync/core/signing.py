"""Sign digests, as proof that the program that stored them had the key."""

from __future__ import annotations

_KEY_NAME_BYTES = 8


class Signer:
    """Signs digests with a key, so that nobody without the key can forge them by writing to the database.

    A signature begins with a name of the key, which distinguishes one by another key from a forged one.
    """

    def __init__(self, key: bytes) -> None:
        """Sign with `key`."""
        import hmac

        self._empty = hmac.new(key, digestmod="sha256")  # copying is twice as fast as starting over
        self._name = self._hmac(b"the name of this key")[:_KEY_NAME_BYTES]

    def sign(self, skill_id: str, version: str, content_digest: bytes, exec_digest: bytes) -> bytes:
        """Return the signature of one version of a skill."""
        names = f"{len(skill_id)}:{skill_id}{version}".encode(errors="surrogatepass")
        return self._name + self._hmac(b"%d:%b%b" % (len(content_digest), content_digest, exec_digest) + names)

    def sign_row(self, *values: bytes) -> bytes:
        """Return the signature of something other than a version."""
        return self._name + self._hmac(b"row" + b"".join(b"%d:%b" % (len(value), value) for value in values))

    def _hmac(self, text: bytes) -> bytes:
        copy = self._empty.copy()
        copy.update(text)
        return copy.digest()

    def is_forged(
        self, signature: bytes | None, skill_id: str, version: str, content_digest: bytes, exec_digest: bytes
    ) -> bool:
        """Tell whether a signature claims to be by this key but is not."""
        return self.has_signed(signature) and signature != self.sign(skill_id, version, content_digest, exec_digest)

    def has_signed(self, signature: bytes | None) -> bool:
        """Tell whether a signature claims to be by this key."""
        return signature is not None and signature[:_KEY_NAME_BYTES] == self._name
