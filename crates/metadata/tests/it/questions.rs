// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every source has to answer. The suite that has stock daemons asks the same of them.

use superpose_metadata::{
    ArchiveInfo, Closure, Error, MetadataSource, PathInfo, RealisationKey, RealisationKind, Result,
};
use superpose_store_path::{HashPart, StorePath};

use super::fixture::{ADDRESSED, DRV, DRV_OUTPUT, path, sample, store_path};

/// Asks a source that holds the sample everything.
pub(crate) fn check(source: &dyn MetadataSource) {
    let unknown = path("unknown");
    assert_eq!(source.store_dir().as_str(), "/nix/store");
    assert_eq!(source.count().unwrap(), 6);

    let valid = source
        .are_valid(&[path("app"), unknown.clone(), path("base"), path("app")])
        .unwrap();
    assert_eq!(valid, [true, false, true, true]);
    assert!(source.are_valid(&[]).unwrap().is_empty());

    let infos = sample();
    let mut asked: Vec<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
    asked.push(unknown.clone());
    let mut expected: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
    expected.push(None);
    assert_eq!(source.path_infos(&asked).unwrap(), expected);
    let archives: Vec<Option<ArchiveInfo>> = expected
        .iter()
        .map(|info| info.as_ref().map(ArchiveInfo::from))
        .collect();
    assert_eq!(source.archives(&asked).unwrap(), archives);

    check_closures(source);
    check_closure_infos(source);

    let referrers = source
        .referrers(&[path("base"), path("app"), unknown.clone(), path("self")])
        .unwrap();
    let mut of_base = vec![path("lib"), path("self")];
    of_base.sort();
    let mut of_self = vec![path("app"), path("self")];
    of_self.sort();
    assert_eq!(referrers, [of_base, vec![], vec![], of_self]);

    let derivers = source
        .valid_derivers(&[store_path(DRV_OUTPUT), path("app")])
        .unwrap();
    assert_eq!(derivers, [vec![store_path(DRV)], vec![]]);
    let outputs = source
        .derivation_outputs(&[store_path(DRV), path("app"), unknown.clone()])
        .unwrap();
    assert_eq!(
        outputs,
        [
            Some(vec![("out".to_owned(), store_path(DRV_OUTPUT))]),
            Some(vec![]),
            None
        ]
    );

    let parts = [
        path("lib").hash_part(),
        unknown.hash_part(),
        HashPart::new([0; 20]),
        HashPart::new([255; 20]),
    ];
    assert_eq!(
        source.path_from_hash_part(&parts).unwrap(),
        [Some(path("lib")), None, None, None]
    );

    let key = |kind| RealisationKey {
        kind,
        derivation: "none".to_owned(),
        output: "out".to_owned(),
    };
    let keys = [key(RealisationKind::HashModulo), key(RealisationKind::BuildTrace)];
    assert_eq!(source.realisations(&keys).unwrap(), [None, None]);
    assert_eq!(source.realisations_of(&[path("app")]).unwrap(), []);

    let mut all = Vec::new();
    source
        .for_each_valid_path(&mut |path| {
            // Asking the same source in between is allowed.
            assert_eq!(source.are_valid(std::slice::from_ref(&path))?, [true]);
            all.push(path);
            Ok(())
        })
        .unwrap();
    all.sort();
    asked.pop();
    asked.sort();
    assert_eq!(all, asked);
    let stop = source.for_each_valid_path(&mut |_| Err(Error::caller("enough")));
    assert_eq!(stop.unwrap_err().to_string(), "enough");
}

fn check_closures(source: &dyn MetadataSource) {
    let check = |roots: &[StorePath], direction, expected: &[&str]| {
        let mut closure = source.closure(roots, direction).unwrap();
        let infos = source.path_infos(&closure).unwrap();
        for (place, info) in infos.iter().map(|info| info.as_ref().unwrap()).enumerate() {
            for reference in &info.references {
                let Some(of_reference) = closure.iter().position(|path| path == reference) else {
                    continue;
                };
                match direction {
                    Closure::References => assert!(of_reference <= place, "{closure:?}"),
                    Closure::Referrers => assert!(of_reference >= place, "{closure:?}"),
                }
            }
        }
        closure.sort();
        let mut expected: Vec<StorePath> = expected.iter().map(|name| path(name)).collect();
        expected.sort();
        assert_eq!(closure, expected);
    };
    check(&[], Closure::References, &[]);
    check(
        &[path("app")],
        Closure::References,
        &["app", "lib", "self", "base"],
    );
    check(
        &[path("lib"), path("base"), path("lib")],
        Closure::References,
        &["lib", "base"],
    );
    check(
        &[path("base")],
        Closure::Referrers,
        &["base", "lib", "self", "app"],
    );
    check(&[path("app")], Closure::Referrers, &["app"]);
    for direction in [Closure::References, Closure::Referrers] {
        let error = source
            .closure(&[path("app"), path("unknown")], direction)
            .unwrap_err();
        assert!(
            matches!(error, Error::NotValid { ref path } if path.ends_with("-unknown")),
            "{error}"
        );
    }
}

fn check_closure_infos(source: &dyn MetadataSource) {
    let ask = |roots: &[&str], left_out: &[&str]| -> Result<Vec<PathInfo>> {
        let roots: Vec<StorePath> = roots.iter().map(|name| path(name)).collect();
        let mut shown = Vec::new();
        let infos = source.closure_infos(&roots, &mut |paths| {
            shown.extend_from_slice(paths);
            Ok(paths.iter().map(|path| left_out.contains(&path.name())).collect())
        })?;
        let count = shown.len();
        shown.sort();
        shown.dedup();
        assert_eq!(shown.len(), count, "each path is shown once");
        Ok(infos)
    };
    let check = |roots: &[&str], left_out: &[&str], expected: &[&str]| {
        let infos = ask(roots, left_out).unwrap();
        let paths: Vec<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
        let same: Vec<PathInfo> = source.path_infos(&paths).unwrap().into_iter().flatten().collect();
        assert_eq!(infos, same);
        for (place, info) in infos.iter().enumerate() {
            for reference in &info.references {
                assert!(
                    paths
                        .iter()
                        .position(|path| path == reference)
                        .is_none_or(|other| other <= place)
                );
            }
        }
        let mut names: Vec<&str> = paths.iter().map(StorePath::name).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
    };
    check(&[], &[], &[]);
    check(&["app"], &[], &["app", "base", "lib", "self"]);
    check(&["app", "lib", "app"], &[], &["app", "base", "lib", "self"]);
    check(&["app"], &["lib"], &["app", "base", "self"]);
    check(&["app"], &["lib", "self"], &["app"]);
    check(&["app", "base"], &["app"], &["base"]);
    check(&["unknown"], &["unknown"], &[]);
    assert!(matches!(ask(&["unknown"], &[]), Err(Error::NotValid { .. })));
    let error = source
        .closure_infos(&[path("app")], &mut |_| Err(Error::caller("no")))
        .unwrap_err();
    assert_eq!(error.to_string(), "no");
    assert_eq!(
        source
            .closure_infos(&[store_path(ADDRESSED)], &mut |_| Ok(vec![false]))
            .unwrap()
            .len(),
        1
    );
}
