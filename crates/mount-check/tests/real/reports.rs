// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person reads, as snapshots.

use superpose_mount_check::{Access, Options, Report};

use crate::harness::{Case, Needs, Outcome};
use crate::outcome::done;
use crate::world::World;

pub(crate) fn trials() -> Vec<Case> {
    vec![Case::new("report_texts", report_texts).needs(Needs::Root)]
}

fn report_texts() -> Outcome {
    let snapshot = |name: &str, world: &World, report: &Report| {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, redact(world, report)));
    };

    let world = World::new();
    world.fill("l2", "second");
    world.object("u2/x");
    snapshot("not_mounted", &world, &world.check(&["l", "l2"], "u"));
    world.overlay("m", &["l", "l2"], "u");
    snapshot("as_expected", &world, &world.check(&["l", "l2"], "u"));
    snapshot("additional_lower", &world, &world.check(&["l"], "u"));
    snapshot("other_order", &world, &world.check(&["l2", "l"], "u"));
    snapshot("wrong_upper", &world, &world.check(&["l", "l2"], "u2"));
    snapshot("missing_upper", &world, &world.check(&["l", "l2"], "nothing"));
    world.fill("l3", "third");
    snapshot("wrong_lower", &world, &world.check(&["l", "l3"], "u"));
    world.tmpfs("m");
    snapshot("hidden", &world, &world.check(&["l", "l2"], "u"));

    let world = World::new();
    world.overlay_with("m", &["l"], "u", ",index=on,nfs_export=on");
    world.mount_command(&["-o", "remount,bind,ro"], "m");
    snapshot("read_only", &world, &world.check(&["l"], "u"));
    let reading = Options {
        access: Access::ReadOnly,
        ..Options::default()
    };
    snapshot("warnings", &world, &world.check_at("m", &["l"], "u", reading));

    let world = World::new();
    world.directory("empty");
    world.overlay("m", &["empty"], "u");
    std::fs::rename(world.path("empty"), world.path("renamed"))?;
    snapshot("cannot_tell", &world, &world.check(&["renamed"], "u"));
    done()
}

/// Takes out what differs from machine to machine: the directory, options that kernels add, which identity
/// was compared, and the machine's own file systems.
fn redact(world: &World, report: &Report) -> String {
    let text = report
        .to_string()
        .replace(&world.path("").display().to_string(), "DIR");
    let mut out = String::new();
    for line in text.lines() {
        let line = line
            .replace("has its file handle", "has its ID")
            .replace("has its inode number", "has its ID");
        let line = line
            .replace("its file handle differs", "its ID differs")
            .replace("its times differ", "its ID differs");
        let line = line.replace("its inode number differs", "its ID differs");
        let line = match line.split_once("a plain directory of") {
            Some((before, _)) => format!("{before}a plain directory of …"),
            None => line,
        };
        match line.trim_start() {
            start if start.starts_with("options:") => {}
            start if start.starts_with("mount: ") && !start.contains("DIR") => out.push_str("  mount: …\n"),
            _ => {
                out.push_str(&line);
                out.push('\n');
            }
        }
    }
    out
}
