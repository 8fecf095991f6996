"""The one set of BFV parameters a run may use, and its fingerprint. No HE library is imported here."""

import hashlib
import json
from typing import Final

from protocol.field import MODULUS
from protocol.layout import CHUNK_SLOTS

__all__ = ["HE_FINGERPRINT", "HE_PARAMETERS"]

#: 109 bits is SEAL's default coefficient modulus for degree 4096: 128-bit security by the
#: HomomorphicEncryption.org standard's table. Addition needs neither relinearisation nor Galois keys.
HE_PARAMETERS: Final = {
    "scheme": "BFV",
    "poly_modulus_degree": CHUNK_SLOTS,
    "plain_modulus": MODULUS,
    "coeff_modulus_bits": 109,
    "encryption": "symmetric",
    "numbers": "coefficients",
}

#: SHA-256 of the canonical JSON of `HE_PARAMETERS`; every upload announces it.
HE_FINGERPRINT: Final = hashlib.sha256(
    json.dumps(HE_PARAMETERS, sort_keys=True, separators=(",", ":")).encode()
).hexdigest()
