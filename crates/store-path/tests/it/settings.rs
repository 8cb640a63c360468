// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of stores.

use std::path::{Path, PathBuf};

use superpose_store_path::{
    CommonSettings, DaemonSettings, Defaults, Error, LocalSettings, OverlaySettings, StoreDir,
    StoreReference, StoreSettings, UrlWarning,
};

fn read(url: &str, defaults: &Defaults) -> superpose_store_path::Result<(StoreSettings, Vec<UrlWarning>)> {
    StoreReference::parse(url.as_bytes(), b"/w")
        .unwrap()
        .0
        .settings(defaults)
}

fn settings(url: &str) -> StoreSettings {
    let (settings, warnings) = read(url, &Defaults::default()).unwrap();
    assert_eq!(warnings, [], "{url}");
    settings
}

fn local(url: &str) -> LocalSettings {
    match settings(url) {
        StoreSettings::Local(local) => local,
        other => panic!("{url} gave {other:?}"),
    }
}

fn daemon(url: &str) -> DaemonSettings {
    match settings(url) {
        StoreSettings::Daemon(daemon) => daemon,
        other => panic!("{url} gave {other:?}"),
    }
}

fn overlay(url: &str) -> OverlaySettings {
    match settings(url) {
        StoreSettings::Overlay(overlay) => *overlay,
        other => panic!("{url} gave {other:?}"),
    }
}

#[test]
fn defaults_of_a_local_store() {
    assert_eq!(
        local("local"),
        LocalSettings {
            store_dir: StoreDir::default(),
            root: None,
            state_dir: "/nix/var/nix".into(),
            log_dir: "/nix/var/log/nix".into(),
            real_dir: "/nix/store".into(),
            read_only: false,
            require_sigs: None,
            build_dir: None,
            ignore_gc_delete_failure: false,
            use_roots_daemon: false,
            common: CommonSettings {
                path_info_cache_size: 65536,
                trusted: false,
                priority: 0,
                want_mass_query: false,
                system_features: None,
            },
        }
    );
}

#[test]
fn where_things_are() {
    fn check(url: &str, store: &str, state: &str, log: &str, real: &str) {
        let found = local(url);
        assert_eq!(found.store_dir.as_str(), store, "{url}");
        assert_eq!(found.state_dir, Path::new(state), "{url}");
        assert_eq!(found.log_dir, Path::new(log), "{url}");
        assert_eq!(found.real_dir, Path::new(real), "{url}");
        let same = settings(url);
        assert_eq!(
            (same.store_dir().as_str(), same.real_dir()),
            (store, Path::new(real))
        );
    }
    check(
        "/m",
        "/nix/store",
        "/m/nix/var/nix",
        "/m/nix/var/log/nix",
        "/m/nix/store",
    );
    check(
        "local?root=/",
        "/nix/store",
        "/nix/var/nix",
        "/nix/var/log/nix",
        "/nix/store",
    );
    // The real directory of a root is literal, whatever the logical one is.
    check(
        "/m?store=/foo",
        "/foo",
        "/m/nix/var/nix",
        "/m/nix/var/log/nix",
        "/m/nix/store",
    );
    check(
        "local?store=/foo",
        "/foo",
        "/nix/var/nix",
        "/nix/var/log/nix",
        "/foo",
    );
    check(
        "local?root=",
        "/nix/store",
        "/nix/var/nix",
        "/nix/var/log/nix",
        "/nix/store",
    );
    check(
        "/m?root=/n&real=/r&state=/s&log=/l/../k",
        "/nix/store",
        "/s",
        "/k",
        "/r",
    );
}

#[test]
fn the_environment_gives_defaults() {
    let defaults = Defaults {
        store_dir: StoreDir::new(b"/foo").unwrap(),
        state_dir: "/state".into(),
        log_dir: "/log".into(),
        daemon_socket: Some("/socket".into()),
    };
    let (found, _) = read("local", &defaults).unwrap();
    let StoreSettings::Local(found) = found else {
        panic!("not local")
    };
    assert_eq!(found.store_dir.as_str(), "/foo");
    assert_eq!(found.state_dir, Path::new("/state"));
    assert_eq!(found.log_dir, Path::new("/log"));
    assert_eq!(found.real_dir, Path::new("/foo"));
    let (found, _) = read("/m", &defaults).unwrap();
    assert_eq!(found.store_dir().as_str(), "/foo", "also with a root");
    assert_eq!(found.real_dir(), Path::new("/m/nix/store"));
    let socket = |url| match read(url, &defaults).unwrap().0 {
        StoreSettings::Daemon(daemon) => daemon.socket,
        other => panic!("{other:?}"),
    };
    assert_eq!(socket("daemon"), Path::new("/socket"));
    assert_eq!(socket("unix:///x"), Path::new("/x"));
}

#[test]
fn values_of_every_type() {
    let found = local(
        "/m?read-only=true&require-sigs=no&build-dir=/b&ignore-gc-delete-failure=1&use-roots-daemon=yes\
         &path-info-cache-size=2k&trusted=0&priority=-5&want-mass-query=false&system-features=a%20%20b%09c",
    );
    assert!(found.read_only && found.ignore_gc_delete_failure && found.use_roots_daemon);
    assert_eq!(found.require_sigs, Some(false));
    assert_eq!(found.build_dir, Some(PathBuf::from("/b")));
    assert_eq!(found.common.path_info_cache_size, 2048);
    assert_eq!(found.common.priority, -5);
    let features = ["a", "b", "c"].map(str::to_owned).into();
    assert_eq!(found.common.system_features, Some(features));
    assert_eq!(local("local?build-dir=").build_dir, None);
    assert_eq!(local("local?priority=%2B5").common.priority, 5);
    for (text, size) in [
        ("7", 7),
        ("1K", 1 << 10),
        ("3m", 3 << 20),
        ("4G", 4 << 30),
        ("5T", 5 << 40),
    ] {
        assert_eq!(
            local(&format!("local?path-info-cache-size={text}"))
                .common
                .path_info_cache_size,
            size
        );
    }
}

#[test]
fn bad_values_are_refused_by_name() {
    fn check(url: &str, setting: &str, value: &str) {
        match read(url, &Defaults::default()).unwrap_err() {
            Error::Setting { key, found, expected } => {
                assert_eq!((key, found.as_str()), (setting, value), "{url}");
                assert!(!expected.is_empty());
            }
            other => panic!("{url} gave {other:?}"),
        }
    }
    for value in ["", "True", "TRUE", "on", "2", "true "] {
        check(&format!("local?read-only={value}"), "read-only", value);
    }
    for value in [
        "",
        "x",
        "K",
        "1X",
        "1.5",
        "-1",
        "1KK",
        "99999999999999999999",
        "99999999999T",
        // Shifted out of 128 bits, it would be nothing.
        "309485009821345068724781056T",
        " 1",
    ] {
        check(
            &format!("local?path-info-cache-size={value}"),
            "path-info-cache-size",
            value,
        );
    }
    check(
        "unix://?max-connections=4294967296",
        "max-connections",
        "4294967296",
    );
    check("unix://?max-connection-age=4T", "max-connection-age", "4T");
    check("local?root=x", "root", "x");
    check("local?state=", "state", "");
    check("local?log=l", "log", "l");
    check("local?real=./r", "real", "./r");
    check("local?real=/a%00b", "real", "/a\\0b");
    check("local?store=", "store", "");
    check("local?store=/", "store", "/");
    check("local?store=/%FF", "store", "/\u{fffd}");
    check("local?system-features=%FF", "system-features", "\u{fffd}");
    check("local-overlay://?check-mount=maybe", "check-mount", "maybe");
    check("local-overlay://?upper-layer=", "upper-layer", "");
    check("local-overlay://?upper-layer=u", "upper-layer", "u");
    check("local-overlay://?remount-hook=h", "remount-hook", "h");
}

#[test]
fn unknown_settings_are_reported() {
    fn check(url: &str, unknown: &[&str]) {
        let (_, warnings) = read(url, &Defaults::default()).unwrap();
        let unknown: Vec<_> = unknown
            .iter()
            .map(|key| UrlWarning::UnknownSetting {
                key: key.as_bytes().to_vec(),
            })
            .collect();
        assert_eq!(warnings, unknown, "{url}");
    }
    check("local?extra-system-features=x&=y", &["", "extra-system-features"]);
    check("local?max-connections=1", &["max-connections"]);
    check("local?lower-store=/a", &["lower-store"]);
    check("unix://?read-only=true", &["read-only"]);
    check(
        "auto?read-only=true&max-connections=2&upper-layer=/u",
        &["upper-layer"],
    );
    check(
        "local-overlay://?max-connections=2&read-only=false",
        &["max-connections"],
    );
    let (_, warnings) = read("local?x=1", &Defaults::default()).unwrap();
    assert_eq!(warnings[0].to_string(), "ignoring unknown setting `x`");
}

#[test]
fn daemons() {
    let found = daemon("unix:///run/lower.sock?root=/mnt/a&max-connections=4&max-connection-age=60");
    assert_eq!(found.socket, Path::new("/run/lower.sock"));
    assert_eq!(found.real_dir, Path::new("/mnt/a/nix/store"));
    assert_eq!((found.max_connections, found.max_connection_age), (4, 60));
    let found = daemon("daemon");
    assert_eq!(found.socket, Path::new("/nix/var/nix/daemon-socket/socket"));
    assert_eq!(found.real_dir, Path::new("/nix/store"));
    assert_eq!((found.max_connections, found.max_connection_age), (1, u32::MAX));
    assert_eq!(
        daemon("daemon?root=/m").socket,
        Path::new("/m/nix/var/nix/daemon-socket/socket")
    );
    assert_eq!(
        daemon("daemon?state=/s").socket,
        Path::new("/s/daemon-socket/socket")
    );
}

#[test]
fn overlays() {
    let found = overlay(
        "local-overlay://?root=/mnt/m&lower-store=/mnt/a%3Fread-only%3Dtrue&upper-layer=/mnt/b&remount-hook=/h",
    );
    assert_eq!(found.local.real_dir, Path::new("/mnt/m/nix/store"));
    assert_eq!(found.local.state_dir, Path::new("/mnt/m/nix/var/nix"));
    assert_eq!(
        found.lower_store,
        StoreReference::local("/mnt/a").with_param("read-only", "true")
    );
    assert_eq!(found.require_upper_layer().unwrap(), Path::new("/mnt/b"));
    assert_eq!(found.remount_hook, Some("/h".into()));
    assert!(found.check_mount && found.explicit_state);

    let found = overlay("local-overlay://");
    assert_eq!(found.lower_store, StoreReference::auto());
    assert!(found.check_mount && !found.explicit_state);
    assert_eq!(
        (found.upper_layer.clone(), found.remount_hook.clone()),
        (None, None)
    );
    assert!(matches!(
        found.require_upper_layer(),
        Err(Error::MissingSetting {
            key: "upper-layer",
            ..
        })
    ));

    let found = overlay("local-overlay://?check-mount=false&remount-hook=&state=/s&lower-store=");
    assert!(!found.check_mount && found.explicit_state);
    assert_eq!(found.remount_hook, None);
    assert_eq!(found.lower_store, StoreReference::auto());
    assert!(!overlay("local-overlay://?root=&real=/r").explicit_state);
}

#[test]
fn overlays_over_overlays() {
    let bottom = StoreReference::local("/a");
    let middle = StoreReference::overlay(&bottom, "/u1", "/m1");
    let top = StoreReference::overlay(&middle, "/u2", "/m2");
    let top = overlay(&top.to_string());
    assert_eq!(top.lower_store, middle);
    let (found, _) = top.lower_store.settings(&Defaults::default()).unwrap();
    let StoreSettings::Overlay(found) = found else {
        panic!("not an overlay")
    };
    assert_eq!(found.lower_store, bottom);
}

#[test]
fn lower_stores_that_cannot_be() {
    fn check(lower: &str) {
        let reference = StoreReference::parse(b"local-overlay://", b"/")
            .unwrap()
            .0
            .with_param("lower-store", lower);
        let error = reference.settings(&Defaults::default()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NestedStoreUrl {
                    key: "lower-store",
                    ..
                }
            ),
            "{error:?}"
        );
    }
    check("https://cache.example.org");
    check("dummy://");
    check("l1");
    // A relative path has nothing it could be relative to once the URL was put together.
    check("./a");
}

#[test]
fn warnings_about_a_lower_store_are_passed_on() {
    let reference = StoreReference::auto();
    assert_eq!(reference.settings(&Defaults::default()).unwrap().1, []);
    let reference = StoreReference::overlay(&reference, "/u", "/m").with_param("lower-store", "/a?b");
    let (_, warnings) = reference.settings(&Defaults::default()).unwrap();
    assert!(
        matches!(warnings[..], [UrlWarning::LowerStore(_)]),
        "{warnings:?}"
    );
}

#[test]
fn auto_is_either() {
    let StoreSettings::Auto(found) = settings("auto?root=/m") else {
        panic!("not auto")
    };
    assert_eq!(found.local, local("/m"));
    assert_eq!(found.daemon, daemon("daemon?root=/m"));
    assert_eq!(settings("auto").real_dir(), Path::new("/nix/store"));
}

#[test]
fn unsupported_stores() {
    for url in [
        "https://cache.example.org",
        "ssh://h",
        "s3://b",
        "dummy://",
        "mounted-ssh-ng://h",
        "x:y",
    ] {
        let error = read(url, &Defaults::default()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedStore { .. }), "{error:?}");
    }
}
