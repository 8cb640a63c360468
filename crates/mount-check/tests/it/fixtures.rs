// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mount tables of four kernels, decoded. How they were obtained: `tests/fixtures/README.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use superpose_mount_check::mountinfo::{self, MountInfo};
use superpose_mount_check::options::{LayerText, OverlayOptions};

const KERNELS: [&str; 4] = ["6.1", "6.12", "6.18", "7.2"];

fn table(kernel: &str) -> Vec<MountInfo> {
    let file = format!(
        "{}/tests/fixtures/linux-{kernel}.mountinfo",
        env!("CARGO_MANIFEST_DIR")
    );
    mountinfo::parse(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn every_kernel_decodes() {
    for kernel in KERNELS {
        let mut text = String::new();
        for mount in table(kernel) {
            describe(&mut text, &mount);
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!(format!("linux-{kernel}"), text));
    }
}

fn describe(text: &mut String, mount: &MountInfo) {
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let access = |read_only| if read_only { "ro" } else { "rw" };
    writeln!(
        text,
        "{} {} root={} source={} mount={} super={}",
        show(&mount.mount_point),
        show(&mount.fs_type),
        show(&mount.root),
        show(&mount.source),
        access(mount.is_mount_read_only()),
        access(mount.is_super_read_only()),
    )
    .unwrap();
    if !mount.is_overlay() {
        return;
    }
    let decoded = OverlayOptions::decode(&mount.super_options);
    let path = |path: &Path| show(path.as_os_str().as_encoded_bytes());
    let layer = |layer: &LayerText| path(&layer.path);
    for lower in &decoded.lower {
        writeln!(
            text,
            "  {} {}",
            if lower.data_only { "data " } else { "lower" },
            layer(lower)
        )
        .unwrap();
    }
    for (name, text_of) in [("upper", &decoded.upper), ("work ", &decoded.work)] {
        writeln!(
            text,
            "  {name} {}",
            text_of.as_ref().map_or_else(|| "-".to_owned(), layer)
        )
        .unwrap();
    }
    let features = decoded.features.iter().map(|option| match &option.value {
        Some(value) => format!("{}={}", show(&option.key), show(value)),
        None => show(&option.key),
    });
    writeln!(text, "  options {}", features.collect::<Vec<_>>().join(" ")).unwrap();
}

#[test]
fn kernels_agree_on_the_layers() {
    // Two mounts on one place are told apart by their order: ids differ from kernel to kernel.
    let layers = |kernel: &str| -> BTreeMap<(Vec<u8>, usize), OverlayOptions> {
        let mut layers = BTreeMap::new();
        for mount in table(kernel).into_iter().filter(MountInfo::is_overlay) {
            let options = OverlayOptions::decode(&mount.super_options);
            let below = layers.keys().filter(|(at, _)| *at == mount.mount_point).count();
            layers.insert((mount.mount_point, below), options);
        }
        layers
    };
    let newest = layers("7.2");
    let check = |kernel: &str, refused: &[&str]| {
        let mut expected = newest.clone();
        for name in refused {
            let key = (format!("/srv/fx/{name}").into_bytes(), 0);
            expected.remove(&key).unwrap();
        }
        let found = layers(kernel);
        assert!(found.keys().eq(expected.keys()), "{kernel} {:?}", found.keys());
        for (mount, options) in found {
            let same = &expected[&mount];
            assert_eq!(options.lower, same.lower, "{kernel} {mount:?}");
            assert_eq!(
                (options.upper, options.work),
                (same.upper.clone(), same.work.clone()),
                "{kernel} {mount:?}"
            );
        }
    };
    check("6.1", &["plus", "datadir", "dataonly", "fds"]);
    check("6.12", &["fds"]);
    check("6.18", &[]);
}

#[test]
fn a_covering_mount_has_the_covered_one_as_parent() {
    for kernel in KERNELS {
        for place in [&b"/srv/fx/stacked"[..], b"/srv/fx/covered"] {
            let mounts = table(kernel)
                .into_iter()
                .filter(|mount| mount.mount_point == place);
            let [covered, covering] = mounts.collect::<Vec<_>>().try_into().unwrap();
            assert_eq!(covering.parent, covered.id, "{kernel}");
        }
    }
}

#[test]
fn odd_names_come_back_as_they_were_made() {
    let check = |kernel: &str, odd: &[u8]| {
        let mount_point = [b"/srv/fx/", odd].concat();
        let found = table(kernel)
            .into_iter()
            .find(|mount| mount.mount_point == mount_point)
            .unwrap();
        let decoded = OverlayOptions::decode(&found.super_options);
        let path = |prefix: &str| {
            use std::os::unix::ffi::OsStringExt as _;
            let bytes = [prefix.as_bytes(), odd].concat();
            std::path::PathBuf::from(std::ffi::OsString::from_vec(bytes))
        };
        assert_eq!(decoded.lower[0].path, path("/srv/fx/l-"));
        assert_eq!(decoded.upper.unwrap().path, path("/srv/fx/u-"));
        assert_eq!(decoded.work.unwrap().path, path("/srv/fx/w-"));
    };
    for odd in [
        &b"sp ace"[..],
        b"com,ma",
        b"co:lon",
        b"back\\slash",
        b"new\nline",
        b"ha#sh",
        b"tab\tbed",
        b"byte\xff",
    ] {
        for kernel in KERNELS {
            check(kernel, odd);
        }
    }
}
