// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that sign what is known of a path, and keys that check it (Ed25519).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::base64;
use crate::error::{Error, Result, excerpt};
use crate::signature::Signature;

/// Length of a public key in bytes.
const PUBLIC_LEN: usize = 32;
/// Length of a secret key in bytes: the seed, and the public key that follows from it.
const SECRET_LEN: usize = 64;

/// The key of the public binary cache of Nix: all that Nix trusts unless it is told otherwise.
const DEFAULT_TRUSTED: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// A key that checks signatures: `name:base64`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Parses the text form; white space around it does not count.
    ///
    /// # Errors
    /// If there is no name and `:`, if the rest is not base64 of 32 bytes, or if these are no point of the curve.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let (name, bytes) = split("public", text)?;
        let fail = |expected| wrong("public", name.as_bytes(), expected);
        let bytes: [u8; PUBLIC_LEN] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| fail("base64 of 32 bytes after the `:`"))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| fail("a point of the curve Ed25519"))?;
        Ok(Self { name, key })
    }

    /// Returns the name, by which a signature says which key made it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether a signature over a text is by this key.
    #[must_use]
    pub fn verifies(&self, text: &[u8], signature: &Signature) -> bool {
        let is_right = |bytes: Vec<u8>| {
            let signature = ed25519_dalek::Signature::from_slice(&bytes).ok()?;
            self.key.verify_strict(text, &signature).ok()
        };
        signature.key_name() == self.name && is_right(signature.value()).is_some()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, base64::encode(self.key.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes())
    }
}

/// A key that makes signatures: `name:base64`. It is never printed, and wiped from memory when dropped.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Parses the text form; white space around it does not count.
    ///
    /// # Errors
    /// If there is no name and `:`, if the rest is not base64 of 64 bytes, or if their second half is not the public
    /// key of their first half: a signature by such a key would give the key away.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let (name, mut bytes) = split("secret", text)?;
        let key = <&[u8; SECRET_LEN]>::try_from(bytes.as_slice())
            .map_err(|_| "base64 of 64 bytes after the `:`")
            .and_then(|bytes| {
                SigningKey::from_keypair_bytes(bytes).map_err(|_| "two halves that belong together")
            });
        bytes.fill(0);
        let key = key.map_err(|expected| wrong("secret", name.as_bytes(), expected))?;
        Ok(Self { name, key })
    }

    /// Returns the name, which becomes that of its signatures.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key that checks its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// Signs a text.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Signature {
        let value = base64::encode(&self.key.sign(text).to_bytes());
        Signature::parse(format!("{}:{value}", self.name).as_bytes())
            .expect("the name was checked, and the rest is base64")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

/// The keys whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKeys(BTreeMap<String, PublicKey>);

impl TrustedKeys {
    /// No key at all: no signature counts.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Parses keys that are separated by white space, as in the setting `trusted-public-keys` of Nix. Of two keys
    /// with one name the last one counts.
    ///
    /// # Errors
    /// If one of them is not a key.
    pub fn parse(text: &[u8]) -> Result<Self> {
        text.split(u8::is_ascii_whitespace)
            .filter(|key| !key.is_empty())
            .map(PublicKey::parse)
            .collect()
    }

    /// Counts the keys that have signed a text. Two signatures by one key count once.
    #[must_use]
    pub fn count<'a>(&self, text: &[u8], signatures: impl IntoIterator<Item = &'a Signature>) -> usize {
        let mut names: Vec<&str> = signatures
            .into_iter()
            .filter(|signature| {
                let key = self.0.get(signature.key_name());
                key.is_some_and(|key| key.verifies(text, signature))
            })
            .map(Signature::key_name)
            .collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }
}

impl FromIterator<PublicKey> for TrustedKeys {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.name.clone(), key)).collect())
    }
}

impl Default for TrustedKeys {
    /// Returns the key of `cache.nixos.org`, which is what Nix trusts by default.
    fn default() -> Self {
        Self::parse(DEFAULT_TRUSTED.as_bytes()).expect("it is a key")
    }
}

/// Splits a key into its name and its bytes.
fn split(kind: &'static str, text: &[u8]) -> Result<(String, Vec<u8>)> {
    let text = text.trim_ascii();
    let colon = text
        .iter()
        .position(|&byte| byte == b':')
        .ok_or_else(|| wrong(kind, b"", "a name, `:` and base64"))?;
    let (name, value) = (&text[..colon], &text[colon + 1..]);
    // The name becomes that of signatures, which has to be one.
    let name = Signature::parse(&[name, b":YQ=="].concat())
        .map_err(|_| wrong(kind, name, "a name without blanks before the `:`"))?
        .key_name()
        .to_owned();
    let bytes = base64::decode(value).ok_or_else(|| wrong(kind, name.as_bytes(), "base64 after the `:`"))?;
    Ok((name, bytes))
}

fn wrong(kind: &'static str, name: &[u8], expected: &'static str) -> Error {
    Error::Key {
        kind,
        name: excerpt(name),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by `nix key generate-secret` and `nix key convert-secret-to-public` of Nix 2.34.
    const SECRET: &str =
        "k1:9DGFYRm0owKiMqsAdOwykae8XJzefyUn75OUb4uovj8s0887pONLSXKVTs+L+KvwcS8Dar8ZBU4Jw6nSZAuQUg==";
    const PUBLIC: &str = "k1:LNPPO6TjS0lylU7Pi/ir8HEvA2q/GQVOCcOp0mQLkFI=";
    // What `nix store sign` of Nix 2.34 made of it for the path in the text.
    const TEXT: &str = "1;/nix/store/z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt;\
        sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw;120;";
    const SIGNATURE: &str =
        "k1:e4G0qbzbqawKSbZvL00eCwME7UblaRYc4UzkAehJTctehaM/20a+2JOUhTeJoYnp3LYtiZ5Pu2UqpNzIQ9aiDw==";

    fn secret() -> SecretKey {
        SecretKey::parse(SECRET.as_bytes()).unwrap()
    }

    #[test]
    fn keys_and_signatures_are_those_of_nix() {
        let public = PublicKey::parse(PUBLIC.as_bytes()).unwrap();
        assert_eq!((secret().public(), secret().name()), (public.clone(), "k1"));
        assert_eq!(public.to_string(), PUBLIC);
        let signature = secret().sign(TEXT.as_bytes());
        assert_eq!(signature.as_str(), SIGNATURE);
        assert!(public.verifies(TEXT.as_bytes(), &signature));
    }

    #[test]
    fn only_the_right_signature_verifies() {
        let public = secret().public();
        let signature = secret().sign(TEXT.as_bytes());
        assert!(!public.verifies(&TEXT.as_bytes()[1..], &signature));
        let mut value = signature.value();
        for at in 0..value.len() {
            value[at] ^= 1;
            let changed = Signature::parse(format!("k1:{}", base64::encode(&value)).as_bytes()).unwrap();
            assert!(!public.verifies(TEXT.as_bytes(), &changed), "byte {at}");
            value[at] ^= 1;
        }
        for text in [
            "k1:YWJj",
            &SIGNATURE.replace("k1:", "k2:"),
            &format!("{}AAAA", SIGNATURE.trim_end_matches('=')),
        ] {
            let other = Signature::parse(text.as_bytes()).unwrap();
            assert!(!public.verifies(TEXT.as_bytes(), &other), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_giving_it_away() {
        for text in [
            "",
            "k1",
            "k1:",
            ":YWJj",
            "k1:YWJj",
            "a b:YWJj",
            "k1:!",
            &SECRET.replace("k1:9", "k1:8"),
            PUBLIC,
        ] {
            let error = SecretKey::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("DGFY"), "{error}");
        }
        for text in ["", "k1", "k1:YWJj", SECRET] {
            assert!(PublicKey::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(!format!("{:?}", secret()).contains("DGFY"));
        assert!(SecretKey::parse(format!(" {SECRET}\n").as_bytes()).is_ok());
    }

    #[test]
    fn trusted_keys_count_each_signer_once() {
        let signature = secret().sign(TEXT.as_bytes());
        let count = |keys: &TrustedKeys, signatures: &[&Signature]| {
            keys.count(TEXT.as_bytes(), signatures.iter().copied())
        };
        let keys = TrustedKeys::parse(format!("\n{DEFAULT_TRUSTED}  {PUBLIC} ").as_bytes()).unwrap();
        assert_eq!(count(&keys, &[&signature]), 1);
        assert_eq!(count(&keys, &[&signature, &signature]), 1);
        assert_eq!(count(&keys, &[]), 0);
        assert_eq!(count(&TrustedKeys::default(), &[&signature]), 0);
        assert_eq!(count(&TrustedKeys::none(), &[&signature]), 0);
        assert!(TrustedKeys::parse(b"k1").is_err());
        assert_eq!(TrustedKeys::parse(b" ").unwrap(), TrustedKeys::none());
    }
}
