"""The embedded C2PA manifest, read and validated by c2pa-python."""

import io
import json
from dataclasses import dataclass
from typing import Any

from rmjax.provenance.fields import tell_container
from rmjax.provenance.text import printable

UNREADABLE = "unreadable"

# Where a manifest is embedded (C2PA Technical Specification, "Embedding manifests").
_PLACES = {
    "JPEG": "JPEG APP11",
    "PNG": "PNG caBX",
    "WebP": "WebP C2PA",
    "GIF": "GIF C2PA_GIF",
    "TIFF": "TIFF tag 0xCD41",
    "BMFF": "BMFF uuid",
}
# The type by which a manifest store calls itself (C2PA Technical Specification, "Use of
# JUMBF"): a file without these bytes has none, and need not be read again.
_STORE = bytes.fromhex("63327061 00110010 800000AA 00389B71")

# Extended key usages of certificates that may sign, those that c2pa-rs lists itself
# (sdk/src/crypto/cose/valid_eku_oids.cfg): e-mail protection, document signing, time
# stamping, OCSP signing, Microsoft's and C2PA's own for manifests. c2pa-python 0.38
# called images by Microsoft invalid unless it was told.
_KEY_USAGES = (
    *("1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.5.5.7.3.8"),
    *("1.3.6.1.5.5.7.3.9", "1.3.6.1.4.1.311.76.59.1.9", "1.3.6.1.4.1.62558.2.1"),
)
# Nothing may be fetched: neither manifests nor certificates' states nor the documents
# that an identity in the manifest refers to. No host is allowed, whatever asks.
SETTINGS = {
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "trust": {"trust_config": "\n".join(_KEY_USAGES)},
}
_MAX_FAILURES = 10


@dataclass(frozen=True)
class C2pa:
    """The C2PA manifest of a file.

    Attributes:
        found: a manifest is embedded.
        where: in which part of the file, such as `PNG caBX`.
        claim_generator: the program that wrote it, as it says itself.
        title: the image's title there.
        signer: to whom the certificate was issued, as it says itself.
        ai_generated: digital source type that its actions state, if that is one of
            generative models: `trainedAlgorithmicMedia` or
            `compositeWithTrainedAlgorithmicMedia`.
        validation: c2pa-python's `Valid` (unchanged since signed; by whom is not
            known, no list of trusted signers being used) or `Invalid` (the failures
            say why), or `unreadable`.
        failures: codes of what failed, at most 10, by the C2PA Technical
            Specification, "Standard status codes"; `signingCredential.untrusted` is
            always among them, for want of that list.
        remote: address of a manifest elsewhere that XMP names; it is never fetched.
    """

    found: bool
    where: str | None = None
    claim_generator: str | None = None
    title: str | None = None
    signer: str | None = None
    ai_generated: str | None = None
    validation: str | None = None
    failures: tuple[str, ...] = ()
    remote: str | None = None


def judge_manifest(data: bytes, remote: str | None) -> C2pa:
    """Describe the manifest embedded in a file.

    Args:
        data: the whole file, whose hash the manifest holds.
        remote: address of a manifest elsewhere, for the record.
    """
    where = _PLACES.get(tell_container(data) or "")
    if where is None or _STORE not in data:
        return C2pa(found=False, remote=remote)
    import c2pa  # here, because few files need it and its library has 53 MB

    try:
        with (
            c2pa.Context.from_dict(SETTINGS) as context,
            c2pa.Reader(None, io.BytesIO(data), context=context) as reader,
        ):
            store = json.loads(reader.json())
        return C2pa(True, where, remote=remote, **_details(store))
    except c2pa.C2paError.ManifestNotFound:  # those bytes are elsewhere in the file
        return C2pa(found=False, remote=remote)
    except Exception:  # c2pa-python's errors are many, and stores may be of any shape
        return C2pa(True, where, validation=UNREADABLE, remote=remote)


def _details(store: dict[str, Any]) -> dict[str, Any]:
    manifest = store["manifests"][store["active_manifest"]]
    results = store.get("validation_results", {})
    checks = [results.get("activeManifest", {})]
    checks += [each["validationDeltas"] for each in results.get("ingredientDeltas", [])]
    failures = [failure["code"] for check in checks for failure in check["failure"]]
    return {
        "claim_generator": _claim_generator(manifest),
        "title": _shown(manifest.get("title")),
        "signer": _shown(manifest.get("signature_info", {}).get("issuer")),
        "ai_generated": _ai_generated(manifest),
        "validation": _shown(store.get("validation_state")),
        "failures": tuple(printable(code) for code in failures[:_MAX_FAILURES]),
    }


def _shown(text: str | None) -> str | None:
    return printable(text) if text else None


def _claim_generator(manifest: dict[str, Any]) -> str | None:
    """Program and version: `claim_generator_info` of new manifests, or the old string."""
    for info in manifest.get("claim_generator_info") or []:
        return printable(f"{info['name']} {info.get('version') or ''}")
    return _shown(manifest.get("claim_generator"))


def _ai_generated(manifest: dict[str, Any]) -> str | None:
    for assertion in manifest.get("assertions", []):
        if assertion["label"].startswith("c2pa.actions"):
            for action in assertion["data"].get("actions", []):
                source_type = action.get("digitalSourceType", "").rpartition("/")[2]
                if source_type.lower().endswith("trainedalgorithmicmedia"):
                    return printable(source_type)
    return None
