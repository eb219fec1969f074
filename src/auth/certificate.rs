//! The two things login needs of an X.509 certificate: the subject's common name, and the hash for channel binding.
//! Must never decide whether a certificate is to be believed: the TLS library has by then.
//!
//! Layout: RFC 5280 section 4.1. Only what rustls has accepted comes here, yet nothing is taken on trust: every length
//! is checked, and what does not fit gives `None`.

use aws_lc_rs::digest::{self, Algorithm};

/// DER tags (ITU-T X.690): universal ones, and `[0]` constructed, which holds the version.
mod der {
    pub const OID: u8 = 0x06;
    pub const UTF8: u8 = 0x0c;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    pub const PRINTABLE: u8 = 0x13;
    pub const IA5: u8 = 0x16;
    pub const CONTEXT_0: u8 = 0xa0;
}

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// id-RSASSA-PSS, 1.2.840.113549.1.1.10: its hash is in the parameters (RFC 4055).
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
/// 1.2.840.113549.1.1, RSA signatures (RFC 8017); the last arc names the hash.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4.3, ECDSA with SHA-2 (RFC 5758).
const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
/// 1.2.840.10045.4.1, ECDSA with SHA-1 (RFC 3279).
const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
/// 2.16.840.1.101.3.4.2, the SHA-2 hashes themselves (RFC 5754).
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The subject's common name. `None` if there is none or more than one (which of them a CA has checked nobody knows),
/// if it holds a zero byte (CVE-2009-4034), or if it is in an encoding other than UTF-8 and ASCII.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (whole, _) = expect(certificate, der::SEQUENCE)?;
    let (mut signed, _) = expect(whole, der::SEQUENCE)?;
    if let Some((_, rest)) = expect(signed, der::CONTEXT_0) {
        signed = rest;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        signed = element(signed)?.2;
    }
    let (mut subject, _) = expect(signed, der::SEQUENCE)?;
    let mut found = None;
    while !subject.is_empty() {
        let (mut set, rest) = expect(subject, der::SET)?;
        subject = rest;
        while !set.is_empty() {
            let (attribute, rest) = expect(set, der::SEQUENCE)?;
            set = rest;
            let (name, value) = expect(attribute, der::OID)?;
            if name == COMMON_NAME {
                let (tag, text, _) = element(value)?;
                let known = matches!(tag, der::UTF8 | der::PRINTABLE | der::IA5);
                if found.is_some() || !known || text.contains(&0) {
                    return None;
                }
                found = Some(std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?);
            }
        }
    }
    found.map(str::to_owned)
}

/// The data of `tls-server-end-point` (RFC 5929 section 4.1): the certificate's hash, by the hash of its signature, or
/// by SHA-256 where that is MD5 or SHA-1. `None` for a signature without a hash of its own, such as Ed25519: for those
/// no binding is defined.
pub fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (whole, _) = expect(certificate, der::SEQUENCE)?;
    let (_, _, rest) = element(whole)?;
    let (signature, _) = expect(rest, der::SEQUENCE)?;
    let (name, parameters) = expect(signature, der::OID)?;
    let algorithm = if name == RSA_PSS { pss_hash(parameters)? } else { hash_of(name)? };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash of a signature algorithm, or the one to use in its place.
fn hash_of(signature: &[u8]) -> Option<&'static Algorithm> {
    if signature == ECDSA_SHA1 {
        return Some(&digest::SHA256);
    }
    let (last, family) = signature.split_last()?;
    match (family, last) {
        // MD5 and SHA-1 with RSA.
        (RSA, 4 | 5) => Some(&digest::SHA256),
        (RSA, 11) | (ECDSA_SHA2, 2) => Some(&digest::SHA256),
        (RSA, 12) | (ECDSA_SHA2, 3) => Some(&digest::SHA384),
        (RSA, 13) | (ECDSA_SHA2, 4) => Some(&digest::SHA512),
        _ => None,
    }
}

/// RSASSA-PSS-params: `[0]` is the hash, SHA-1 if absent.
fn pss_hash(parameters: &[u8]) -> Option<&'static Algorithm> {
    let (fields, _) = expect(parameters, der::SEQUENCE)?;
    let Some((hash, _)) = expect(fields, der::CONTEXT_0) else { return Some(&digest::SHA256) };
    let (algorithm, _) = expect(hash, der::SEQUENCE)?;
    let (name, _) = expect(algorithm, der::OID)?;
    let (last, family) = name.split_last()?;
    match (family, last) {
        (SHA2, 1) => Some(&digest::SHA256),
        (SHA2, 2) => Some(&digest::SHA384),
        (SHA2, 3) => Some(&digest::SHA512),
        _ => None,
    }
}

/// Content of the first element, which must have this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it. Lengths of up to three bytes: nothing longer than
/// 16 MiB is a certificate.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "CN=mallory");
        for name in names {
            params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String((*name).to_owned()));
        }
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_the_subjects() {
        let name = |names: &[&str]| common_name(&certificate(names, &rcgen::PKCS_ECDSA_P256_SHA256));
        assert_eq!(name(&["alice"]), Some("alice".to_owned()));
        assert_eq!(name(&["J\u{f6}rg, Dr."]), Some("J\u{f6}rg, Dr.".to_owned()));
        assert_eq!(name(&[]), None);
        assert_eq!(name(&["alice\0.example"]), None);
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384),
            (&rcgen::PKCS_RSA_SHA256, &digest::SHA256),
            (&rcgen::PKCS_RSA_SHA512, &digest::SHA512),
        ] {
            let certificate = certificate(&["x"], algorithm);
            let expected = digest::digest(hash, &certificate);
            assert_eq!(end_point_hash(&certificate).unwrap(), expected.as_ref(), "{algorithm:?}");
        }
        assert_eq!(end_point_hash(&certificate(&["x"], &rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn damaged_certificates_give_nothing_and_do_no_harm() {
        let good = certificate(&["alice"], &rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..good.len() {
            assert_eq!(common_name(&good[..end]), None);
            assert_eq!(end_point_hash(&good[..end]), None);
        }
        for at in 0..good.len() {
            for byte in [0, 0x30, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = (common_name(&bad), end_point_hash(&bad));
            }
        }
    }
}
