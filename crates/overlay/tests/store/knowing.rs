// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions to both layers, and making lower paths known above.

use superpose_overlay::metadata::{Closure, MetadataSource, PathInfo};
use superpose_overlay::store_path::{Hash, StorePath, StoreReference};
use superpose_overlay::{Layer, OpenOptions, Registered, Store, StoreView};

use crate::namespace::Named;
use crate::stage::{Stage, add_text, is_valid, resolve};

pub(crate) const TRIALS: &[Named] = &[
    ("knowing::questions_write_nothing", questions_write_nothing),
    ("knowing::both_layers_answer", both_layers_answer),
    (
        "knowing::closures_do_not_change_sides",
        closures_do_not_change_sides,
    ),
    (
        "knowing::ensure_copies_a_closure_once",
        ensure_copies_a_closure_once,
    ),
    (
        "knowing::ensure_of_something_invalid_writes_nothing",
        ensure_of_something_invalid_writes_nothing,
    ),
    (
        "knowing::registering_copies_what_references_need",
        registering_copies_what_references_need,
    ),
    (
        "knowing::registering_an_unknown_reference_writes_nothing",
        registering_an_unknown_reference_writes_nothing,
    ),
    ("knowing::three_layers_answer", three_layers_answer),
];

/// `library <- program` below.
struct Below {
    stage: Stage,
    library: StorePath,
    program: StorePath,
}

fn below() -> Below {
    let mut paths = None;
    let stage = Stage::over(|lower| {
        let library = add_text(lower, "library", "1", &[]);
        let program = add_text(lower, "program", "2", &[&library]);
        paths = Some((library, program));
    });
    let (library, program) = paths.unwrap();
    Below {
        stage,
        library,
        program,
    }
}

fn questions_write_nothing() {
    let Below {
        stage,
        library,
        program,
    } = below();
    let before = stage.lower_tree();
    let view = stage.view();
    assert!(is_valid(&view, &program));
    assert_eq!(
        view.closure(std::slice::from_ref(&program), Closure::References)
            .unwrap(),
        [library.clone(), program.clone()]
    );
    assert_eq!(
        view.referrers(std::slice::from_ref(&library)).unwrap(),
        [[program.clone()]]
    );
    assert_eq!(
        view.path_from_hash_part(&[program.hash_part()]).unwrap(),
        [Some(program.clone())]
    );
    assert_eq!(view.locate(&[program]).unwrap(), [Layer::Lower]);
    assert!(view.roots().unwrap().is_empty());
    assert!(
        !stage.path("merged-store/nix/var").exists(),
        "no state directory is made for a question"
    );
    assert_eq!(stage.upper_names(), Vec::<String>::new());
    assert_eq!(stage.lower_tree(), before);
}

fn both_layers_answer() {
    let Below {
        stage,
        library,
        program,
    } = below();
    let above = add_text(&mut stage.open(), "above", "3", &[&library]);
    let view = stage.view();
    let infos = view.path_infos(&[above.clone(), program.clone()]).unwrap();
    assert_eq!(
        infos[0].as_ref().unwrap().references,
        std::slice::from_ref(&library)
    );
    assert_eq!(
        infos[1].as_ref().unwrap().references,
        std::slice::from_ref(&library)
    );
    let mut referrers = [above.clone(), program.clone()];
    referrers.sort();
    assert_eq!(
        view.referrers(std::slice::from_ref(&library)).unwrap(),
        [referrers]
    );
    let closure = view
        .closure(std::slice::from_ref(&library), Closure::Referrers)
        .unwrap();
    assert_eq!(closure.last(), Some(&library), "dependents come first");
    assert_eq!(closure.len(), 3);
    let mut all = Vec::new();
    view.for_each_valid_path(&mut |path| {
        all.push(path);
        Ok(())
    })
    .unwrap();
    all.sort();
    let mut expected = vec![above, library, program];
    expected.sort();
    assert_eq!(all, expected, "each once, though the library has a row in both");
    assert_eq!(view.count().unwrap(), 3);
    assert_eq!(view.upper_metadata().count().unwrap(), 2);
}

fn closures_do_not_change_sides() {
    let Below {
        stage,
        library,
        program,
    } = below();
    let above = add_text(&mut stage.open(), "above", "3", &[&library]);
    let view = stage.view();
    let closure = view
        .closure(&[above.clone(), program.clone()], Closure::References)
        .unwrap();
    assert_eq!(closure.len(), 3, "{closure:?}");
    let position = |path| closure.iter().position(|found| found == path).unwrap();
    assert!(position(&library) < position(&program) && position(&library) < position(&above));
    let infos = view
        .closure_infos(&[above, program], &mut |paths| Ok(vec![false; paths.len()]))
        .unwrap();
    assert_eq!(infos.len(), 3);
}

fn ensure_copies_a_closure_once() {
    let Below {
        stage,
        library,
        program,
    } = below();
    let mut store = stage.open();
    let registered = store.ensure(std::slice::from_ref(&program)).unwrap();
    assert_eq!(
        registered,
        Registered {
            registered: 0,
            copied: 2
        }
    );
    let below = StoreView::open(&resolve(&StoreReference::local(stage.path("store-a")))).unwrap();
    let paths = [library, program];
    assert_eq!(
        store.upper_metadata().path_infos(&paths).unwrap(),
        below.path_infos(&paths).unwrap()
    );
    assert_eq!(store.ensure(&paths).unwrap(), Registered::default());
    assert_eq!(stage.upper_names(), Vec::<String>::new(), "no file is touched");
}

fn unknown() -> StorePath {
    StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-unknown").unwrap()
}

fn ensure_of_something_invalid_writes_nothing() {
    let Below { stage, program, .. } = below();
    let mut store = stage.open();
    let error = store.ensure(&[program, unknown()]).unwrap_err();
    assert!(error.to_string().contains("-unknown"), "{error}");
    assert_eq!(store.upper_metadata().count().unwrap(), 0);
}

fn registering_copies_what_references_need() {
    let Below { stage, program, .. } = below();
    let mut store = stage.open();
    let path = StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-built").unwrap();
    let mut info = PathInfo::new(path.clone(), Hash::sha256([7; 32]), 120);
    info.references = vec![program.clone(), path.clone()];
    info.references.sort();
    let registered = store.register(&[info]).unwrap();
    assert_eq!(
        registered,
        Registered {
            registered: 1,
            copied: 2
        }
    );
    assert!(is_valid(store.upper_metadata(), &program));
}

fn registering_an_unknown_reference_writes_nothing() {
    let Below { stage, program, .. } = below();
    let mut store = stage.open();
    let path = StorePath::from_base_name(b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-built").unwrap();
    let mut info = PathInfo::new(path, Hash::sha256([7; 32]), 120);
    info.references = vec![program, unknown()];
    info.references.sort();
    store.register(&[info]).unwrap_err();
    assert_eq!(
        store.upper_metadata().count().unwrap(),
        0,
        "not even what could be copied"
    );
}

/// An overlay store over an overlay store: one mount of all layers, metadata of all three.
fn three_layers_answer() {
    let Below {
        stage,
        library,
        program,
    } = below();
    let middle = add_text(&mut stage.open(), "middle", "3", &[&program]);
    let upper = stage.path("store-c");
    let root = stage.path("merged-again");
    for directory in [&upper, &root.join("nix/store"), &stage.path("work-c")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let reference = StoreReference::overlay(&stage.reference(), &upper, &root);
    let layout = resolve(&reference);
    assert_eq!(
        layout.layers(),
        [upper.clone(), stage.upper_dir(), stage.lower_dir()]
    );
    superpose_overlay::mounting::mount_overlay(
        &superpose_overlay::mounting::MountPlan::new(
            vec![stage.upper_dir(), stage.lower_dir()],
            &upper,
            stage.path("work-c"),
            root.join("nix/store"),
        )
        .with_attributes(superpose_overlay::mounting::OverlayAttributes::for_this_process().unwrap()),
    )
    .unwrap();
    let before = crate::stage::tree(&stage.path("merged-store"));
    let mut store = Store::open(layout.clone(), OpenOptions::default()).unwrap();
    let top = add_text(&mut store, "top", "4", &[&middle]);
    assert_eq!(
        store.upper_metadata().count().unwrap(),
        4,
        "the closure is complete above"
    );
    drop(store);
    let view = StoreView::open_verified(&layout).unwrap();
    let closure = view
        .closure(std::slice::from_ref(&top), Closure::References)
        .unwrap();
    assert_eq!(closure, [library, program, middle.clone(), top.clone()]);
    assert_eq!(view.locate(&[top, middle]).unwrap(), [Layer::Upper, Layer::Lower]);
    assert_eq!(
        crate::stage::tree(&stage.path("merged-store")),
        before,
        "the store below is not written"
    );
    drop(view);
    superpose_overlay::mounting::unmount(
        &root.join("nix/store"),
        superpose_overlay::mounting::Detach::Lazily,
    )
    .unwrap();
}
