// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of each kind of store, from a URL and the defaults.

use std::path::{Path, PathBuf};

use super::value::Values;
use super::{
    AutoSettings, CommonSettings, DaemonSettings, Defaults, LocalSettings, OverlaySettings, StoreSettings,
};
use crate::error::{Error, Result, excerpt};
use crate::reference::{LOWER_STORE, ROOT, StoreKind, StoreReference, UrlWarning};
use crate::store_dir::StoreDir;

/// What Nix keeps of answers if a URL does not say.
const PATH_INFO_CACHE_SIZE: u64 = 65536;

/// Where the parts of a store are that lies on this file system.
struct Places {
    store_dir: StoreDir,
    root: Option<PathBuf>,
    state_dir: PathBuf,
    log_dir: PathBuf,
    real_dir: PathBuf,
}

pub(super) fn settings(
    reference: &StoreReference,
    defaults: &Defaults,
) -> Result<(StoreSettings, Vec<UrlWarning>)> {
    let values = Values::new(reference.params());
    let mut warnings = Vec::new();
    let settings = match reference.kind() {
        StoreKind::Auto => StoreSettings::Auto(Box::new(AutoSettings {
            local: local(&values, defaults)?,
            daemon: daemon(&values, defaults, None)?,
        })),
        StoreKind::Local => StoreSettings::Local(local(&values, defaults)?),
        StoreKind::Daemon { socket } => StoreSettings::Daemon(daemon(&values, defaults, socket.as_deref())?),
        StoreKind::LocalOverlay => {
            StoreSettings::Overlay(Box::new(overlay(&values, defaults, &mut warnings)?))
        }
        StoreKind::Other { .. } => {
            return Err(Error::UnsupportedStore {
                url: excerpt(reference.to_string().as_bytes()),
                expected: "a store on this file system or behind a socket: `local`, `unix` or `local-overlay`",
            });
        }
    };
    warnings.extend(
        values
            .unknown()
            .into_iter()
            .map(|key| UrlWarning::UnknownSetting { key }),
    );
    Ok((settings, warnings))
}

fn common(values: &Values<'_>) -> Result<CommonSettings> {
    Ok(CommonSettings {
        path_info_cache_size: values
            .integer("path-info-cache-size")?
            .unwrap_or(PATH_INFO_CACHE_SIZE),
        trusted: values.boolean("trusted")?.unwrap_or(false),
        priority: values.integer("priority")?.unwrap_or(0),
        want_mass_query: values.boolean("want-mass-query")?.unwrap_or(false),
        system_features: values.words("system-features")?,
    })
}

fn places(values: &Values<'_>, defaults: &Defaults) -> Result<Places> {
    let store_dir = values
        .store_dir("store")?
        .unwrap_or_else(|| defaults.store_dir.clone());
    let root = values.optional_path(ROOT)?;
    let below = |inside: &str, otherwise: &Path| {
        root.as_ref()
            .map_or_else(|| otherwise.to_path_buf(), |root| root.join(inside))
    };
    Ok(Places {
        state_dir: values
            .path("state")?
            .unwrap_or_else(|| below("nix/var/nix", &defaults.state_dir)),
        log_dir: values
            .path("log")?
            .unwrap_or_else(|| below("nix/var/log/nix", &defaults.log_dir)),
        real_dir: values
            .path("real")?
            .unwrap_or_else(|| below("nix/store", Path::new(store_dir.as_str()))),
        store_dir,
        root,
    })
}

fn local(values: &Values<'_>, defaults: &Defaults) -> Result<LocalSettings> {
    let Places {
        store_dir,
        root,
        state_dir,
        log_dir,
        real_dir,
    } = places(values, defaults)?;
    Ok(LocalSettings {
        store_dir,
        root,
        state_dir,
        log_dir,
        real_dir,
        read_only: values.boolean("read-only")?.unwrap_or(false),
        require_sigs: values.boolean("require-sigs")?,
        build_dir: values.optional_path("build-dir")?,
        ignore_gc_delete_failure: values.boolean("ignore-gc-delete-failure")?.unwrap_or(false),
        use_roots_daemon: values.boolean("use-roots-daemon")?.unwrap_or(false),
        common: common(values)?,
    })
}

fn daemon(values: &Values<'_>, defaults: &Defaults, socket: Option<&Path>) -> Result<DaemonSettings> {
    let Places {
        store_dir,
        root,
        state_dir,
        log_dir,
        real_dir,
    } = places(values, defaults)?;
    let socket = socket.or(defaults.daemon_socket.as_deref());
    Ok(DaemonSettings {
        socket: socket.map_or_else(|| state_dir.join("daemon-socket/socket"), Path::to_path_buf),
        store_dir,
        root,
        state_dir,
        log_dir,
        real_dir,
        max_connections: values.integer("max-connections")?.unwrap_or(1),
        max_connection_age: values.integer("max-connection-age")?.unwrap_or(u32::MAX),
        common: common(values)?,
    })
}

fn overlay(
    values: &Values<'_>,
    defaults: &Defaults,
    warnings: &mut Vec<UrlWarning>,
) -> Result<OverlaySettings> {
    let nested = |source| Error::NestedStoreUrl {
        key: LOWER_STORE,
        source: Box::new(source),
    };
    // A URL that was parsed holds no relative path any more; one that was put together must not.
    let no_cwd = b"";
    let (lower_store, below) =
        StoreReference::parse(values.bytes(LOWER_STORE).unwrap_or_default(), no_cwd).map_err(nested)?;
    warnings.extend(
        below
            .into_iter()
            .map(|warning| UrlWarning::LowerStore(Box::new(warning))),
    );
    if let StoreKind::Other { .. } = lower_store.kind() {
        return Err(nested(Error::UnsupportedStore {
            url: excerpt(lower_store.to_string().as_bytes()),
            expected: "a store with a directory on this file system: `local`, `unix` or `local-overlay`",
        }));
    }
    let local = local(values, defaults)?;
    Ok(OverlaySettings {
        lower_store,
        upper_layer: values.path("upper-layer")?,
        check_mount: values.boolean("check-mount")?.unwrap_or(true),
        remount_hook: values.optional_path("remount-hook")?,
        explicit_state: local.root.is_some() || values.bytes("state").is_some(),
        local,
    })
}
