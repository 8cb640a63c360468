// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store URLs, read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{LOWER_STORE, ROOT, StoreKind, StoreReference, UrlWarning, percent};
use crate::error::{Error, Result, excerpt};
use crate::lexical;

/// Longest store URL, in bytes: room for many paths of the longest kind.
pub const MAX_URL_LEN: usize = 64 << 10;

/// Most overlay stores over one another. The kernel itself stacks two file systems.
pub const MAX_NESTING: usize = 32;

impl StoreReference {
    /// Parses a store URL, or one of the short forms.
    ///
    /// | text, before the first `?` | store |
    /// |---|---|
    /// | nothing, `auto` | whatever is there |
    /// | `local`, `local://` | the local store |
    /// | a path with at least one `/` | the local store with that root, relative to `cwd` |
    /// | `daemon`, `unix://`, `unix:///socket` | a daemon's |
    /// | `local-overlay://` | an overlay store |
    ///
    /// Settings follow the `?`, as `key=value` separated by `&`, and percent-encoded once. Of a setting that
    /// is given twice the first value counts. The value of `lower-store` is a store URL itself, encoded once
    /// more as a whole; only `&`, `#` and `%` need it.
    ///
    /// # Errors
    /// If the text is none of these, an encoding is broken, a path is not absolute where it must be, or the
    /// text exceeds [`MAX_URL_LEN`] or [`MAX_NESTING`].
    ///
    /// # Deviation
    /// As Nix 2.34 and newer, which decode each part once. Nix 2.33 and older decode `lower-store` twice; Nix
    /// 2.32 and 2.33 do not decode the path of `local:///path`. A text with a scheme and `:` is never taken
    /// for a plain path, and its path must be percent-encoded wherever a URL's has to be. Bytes outside ASCII
    /// may stand in a query as they are, which Nix refuses; they are encoded when the URL is displayed.
    pub fn parse(text: &[u8], cwd: &[u8]) -> Result<(Self, Vec<UrlWarning>)> {
        let mut warnings = Vec::new();
        let reference = parse_nested(text, cwd, 0, &mut warnings)?;
        Ok((reference, warnings))
    }
}

/// Parses a store URL that stands inside `depth` others.
fn parse_nested(
    text: &[u8],
    cwd: &[u8],
    depth: usize,
    warnings: &mut Vec<UrlWarning>,
) -> Result<StoreReference> {
    check_length(text)?;
    if depth > MAX_NESTING {
        let subject = "the nesting of store URLs".to_owned();
        return Err(Error::TooLarge {
            subject,
            limit: MAX_NESTING,
            unit: "levels",
        });
    }
    let (base, query, scheme) = match split_scheme(text) {
        Some((scheme, rest)) => {
            let (rest, fragment) = split_at_byte(rest, b'#');
            if let Some(fragment) = fragment {
                warnings.push(UrlWarning::IgnoredFragment {
                    fragment: fragment.to_vec(),
                });
            }
            let (base, query) = split_at_byte(rest, b'?');
            (base.strip_prefix(b"//").unwrap_or(base), query, Some(scheme))
        }
        None => {
            let (base, query) = split_at_byte(text, b'?');
            if query.is_some_and(|query| query.contains(&b'#')) {
                // Nix refuses it as well; in a URL it would begin a fragment, here it could be meant.
                let expected = "`%23` for a `#` in the query";
                return Err(Error::StoreUrl {
                    found: excerpt(text),
                    expected,
                });
            }
            (base, query, None)
        }
    };
    let params = query.map_or_else(|| Ok(BTreeMap::new()), |query| parse_query(text, query, warnings))?;
    let (kind, path) = match scheme {
        Some(scheme) => url_kind(text, scheme, base)?,
        None => plain_kind(text, base, cwd)?,
    };
    let mut reference = StoreReference { kind, params };
    if let Some(path) = path {
        match reference.params.entry(ROOT.into()) {
            Entry::Vacant(entry) => {
                entry.insert(path);
            }
            Entry::Occupied(entry) => {
                warnings.push(UrlWarning::ShadowedPath {
                    path,
                    root: entry.get().clone(),
                });
            }
        }
    }
    if reference.kind == StoreKind::LocalOverlay {
        resolve_lower(&mut reference, cwd, depth, warnings)?;
    }
    Ok(reference)
}

fn check_length(text: &[u8]) -> Result<()> {
    if text.len() > MAX_URL_LEN {
        let subject = format!("store URL `{}`", excerpt(text));
        return Err(Error::TooLarge {
            subject,
            limit: MAX_URL_LEN,
            unit: "bytes",
        });
    }
    Ok(())
}

/// Puts the URL of the lower store in its full form, so that it no longer depends on the working directory.
fn resolve_lower(
    reference: &mut StoreReference,
    cwd: &[u8],
    depth: usize,
    warnings: &mut Vec<UrlWarning>,
) -> Result<()> {
    let Some(value) = reference.params.get_mut(LOWER_STORE.as_bytes()) else {
        return Ok(());
    };
    let mut inner = Vec::new();
    let lower = parse_nested(value, cwd, depth + 1, &mut inner).map_err(|source| Error::NestedStoreUrl {
        key: LOWER_STORE,
        source: Box::new(source),
    })?;
    warnings.extend(
        inner
            .into_iter()
            .map(|warning| UrlWarning::LowerStore(Box::new(warning))),
    );
    *value = lower.to_string().into_bytes();
    // Paths have become absolute and bytes encoded: what is displayed must be readable again.
    check_length(value)
}

/// Splits a URL's scheme from what follows the `:`; `None` if the text does not begin like a URL.
fn split_scheme(text: &[u8]) -> Option<(&str, &[u8])> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let scheme = str::from_utf8(&text[..colon]).ok()?;
    let valid = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'.' | b'-')
        });
    valid.then_some((scheme, &text[colon + 1..]))
}

/// Splits at the first `separator`, which belongs to neither part.
fn split_at_byte(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |&byte| byte == separator);
    (parts.next().unwrap_or_default(), parts.next())
}

/// The kind of a URL, and the path that it gives as `root`.
fn url_kind(text: &[u8], scheme: &str, path: &[u8]) -> Result<(StoreKind, Option<Vec<u8>>)> {
    let fail = |expected| Error::StoreUrl {
        found: excerpt(text),
        expected,
    };
    // What RFC 3986 allows in authority and path. Nix refuses the rest as well.
    let allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%[]".contains(&byte);
    let Some(raw) = str::from_utf8(path)
        .ok()
        .filter(|path| path.as_bytes().iter().all(allowed))
    else {
        return Err(fail(
            "percent-encoding of blanks and special characters in the path",
        ));
    };
    let absolute = || -> Result<Option<Vec<u8>>> {
        if path.is_empty() {
            return Ok(None);
        }
        let decoded = percent::decode(path).ok_or_else(|| fail("two hexadecimal digits after each `%`"))?;
        let canonical = lexical::canonical(&decoded)
            .ok_or_else(|| fail("an absolute path without NUL and no host, as in `local:///path`"))?;
        Ok(Some(canonical))
    };
    Ok(match scheme {
        "local" => (StoreKind::Local, absolute()?),
        "local-overlay" => (StoreKind::LocalOverlay, absolute()?),
        "unix" => {
            let socket = absolute()?.map(|path| PathBuf::from(OsString::from_vec(path)));
            (StoreKind::Daemon { socket }, None)
        }
        _ => (
            StoreKind::Other {
                scheme: scheme.to_owned(),
                path: raw.to_owned(),
            },
            None,
        ),
    })
}

/// The kind of a text without a scheme, and the path that it gives as `root`.
fn plain_kind(text: &[u8], base: &[u8], cwd: &[u8]) -> Result<(StoreKind, Option<Vec<u8>>)> {
    let fail = |expected| Error::StoreUrl {
        found: excerpt(text),
        expected,
    };
    match base {
        b"" | b"auto" => Ok((StoreKind::Auto, None)),
        b"local" => Ok((StoreKind::Local, None)),
        b"daemon" => Ok((StoreKind::Daemon { socket: None }, None)),
        _ if base.contains(&b'/') && !base.windows(3).any(|three| three == b"://") => {
            let path = lexical::absolute(base, cwd)
                .ok_or_else(|| fail("a path without NUL, and an absolute working directory"))?;
            Ok((StoreKind::Local, Some(path)))
        }
        _ => Err(fail(
            "`auto`, `local`, `daemon`, `local-overlay://?…`, `unix:///socket`, or a path with a `/`",
        )),
    }
}

fn parse_query(
    text: &[u8],
    query: &[u8],
    warnings: &mut Vec<UrlWarning>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut params = BTreeMap::new();
    if query.is_empty() {
        return Ok(params);
    }
    let decode = |part: &[u8]| {
        let expected = "two hexadecimal digits after each `%` in the query";
        percent::decode(part).ok_or_else(|| Error::StoreUrl {
            found: excerpt(text),
            expected,
        })
    };
    for piece in query.split(|&byte| byte == b'&') {
        let (key, Some(value)) = split_at_byte(piece, b'=') else {
            warnings.push(UrlWarning::DubiousPiece {
                piece: piece.to_vec(),
            });
            continue;
        };
        let value = decode(value)?;
        match params.entry(decode(key)?) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(entry) => warnings.push(UrlWarning::DuplicateKey {
                key: entry.key().clone(),
                used: entry.get().clone(),
                ignored: value,
            }),
        }
    }
    Ok(params)
}
