"""Signs images with c2pa-python and certificates made on the spot."""

import datetime
import io
import json

import c2pa

from rmjax.provenance.manifest import SETTINGS

MANIFEST = {
    "claim_generator_info": [{"name": "drawer", "version": "1.0"}],
    "title": "a \x1b[2Jpicture",
    "assertions": [
        {
            "label": "c2pa.actions.v2",
            "data": {
                "actions": [
                    {
                        "action": "c2pa.created",
                        "digitalSourceType": "http://cv.iptc.org/newscodes/"
                        "digitalsourcetype/trainedAlgorithmicMedia",
                    }
                ]
            },
        }
    ],
}


def sign(data: bytes, mime: str, remote: str = "") -> tuple[bytes, bytes]:
    """Return the image with its manifest, and the manifest.

    With `remote` the image only refers to that address.
    """
    certificates, key = _certificates()
    info = c2pa.C2paSignerInfo(
        alg=b"es256", sign_cert=certificates, private_key=key, ta_url=None
    )
    context = c2pa.Context.from_dict(
        SETTINGS
        | {
            "builder": {"thumbnail": {"enabled": False}},
            "verify": {"verify_after_sign": False},
        }
    )
    signed = io.BytesIO()
    with (
        context,
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(MANIFEST), context=context) as builder,
    ):
        if remote:
            builder.set_remote_url(remote)
            builder.set_no_embed()
        manifest = builder.sign(signer, mime, io.BytesIO(data), signed)
    return signed.getvalue(), manifest


def _certificates() -> tuple[bytes, bytes]:
    """A chain of a signer and its authority as PEM, and the signer's key.

    With the extensions that the C2PA Technical Specification asks for ("X.509
    certificates").
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("Authority", root_key, "Authority", root_key)
    leaf = _certificate("Someone", key, "Authority", root_key)
    chain = [each.public_bytes(serialization.Encoding.PEM) for each in (leaf, root)]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return b"".join(chain), private


def _certificate(name, key, issuer, issuer_key):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    is_root = name == issuer
    oid = x509.oid.NameOID
    subject, authority = (
        x509.Name(
            [
                x509.NameAttribute(oid.ORGANIZATION_NAME, each),
                x509.NameAttribute(oid.COMMON_NAME, each),
            ]
        )
        for each in (name, issuer)
    )
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    uses = dict.fromkeys(
        "content_commitment key_encipherment data_encipherment key_agreement "
        "encipher_only decipher_only".split(),
        False,
    )
    usage = x509.KeyUsage(
        digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **uses
    )
    builder = x509.CertificateBuilder(
        authority,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        now - day,
        now + day,
    )
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        issuer_key.public_key()
    )
    builder = (
        builder.add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    if not is_root:
        # Microsoft's for manifests, which not every setting lets pass.
        purpose = x509.ObjectIdentifier("1.3.6.1.4.1.311.76.59.1.9")
        purposes = x509.ExtendedKeyUsage([purpose])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
