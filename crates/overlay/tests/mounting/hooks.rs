// SPDX-License-Identifier: MIT OR Apache-2.0
//! Remount hooks, good and bad. None of these needs a mount.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use superpose_overlay::Error;
use superpose_overlay::mounting::{HookFailure, RemountHook};

use crate::namespace::Named;
use crate::stand::write;

pub(crate) const TRIALS: &[Named] = &[
    (
        "hook_gets_the_mount_point_and_nothing_else",
        gets_the_mount_point_and_nothing_else,
    ),
    (
        "hook_may_print_more_than_a_pipe_holds",
        may_print_more_than_a_pipe_holds,
    ),
    ("hook_failures_are_told_apart", failures_are_told_apart),
    ("hook_is_not_searched_in_path", is_not_searched_in_path),
    (
        "hook_that_hangs_is_killed_with_its_children",
        that_hangs_is_killed_with_its_children,
    ),
    ("hook_may_leave_a_process_behind", may_leave_a_process_behind),
    ("hook_error_says_what_to_do", error_says_what_to_do),
];

const MOUNT_POINT: &str = "/a mount point";

struct Script {
    base: tempfile::TempDir,
    path: PathBuf,
}

impl Script {
    fn new(text: &str, mode: u32) -> Self {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("hook");
        write(&path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Script { base, path }
    }

    fn shell(body: &str) -> Self {
        Self::new(&format!("#!/bin/sh\n{body}\n"), 0o755)
    }

    fn hook(&self) -> RemountHook {
        RemountHook::new(&self.path)
    }
}

fn failure(hook: &RemountHook) -> HookFailure {
    match hook.run(Path::new(MOUNT_POINT)).unwrap_err() {
        Error::RemountHook {
            hook: named,
            mount_point,
            failure,
            ..
        } => {
            assert_eq!(
                (named.as_path(), mount_point.as_path()),
                (hook.program(), Path::new(MOUNT_POINT))
            );
            failure
        }
        other => panic!("unexpected error: {other}"),
    }
}

fn gets_the_mount_point_and_nothing_else() {
    let script = Script::shell("out=$(dirname \"$0\")/out; printf '%s|' $# \"$@\" >\"$out\"; cat >>\"$out\"");
    let mount_point = Path::new(std::ffi::OsStr::from_bytes(b"/odd \n\xff, path"));
    script.hook().run(mount_point).unwrap();
    assert_eq!(
        fs::read(script.base.path().join("out")).unwrap(),
        b"1|/odd \n\xff, path|"
    );
}

fn may_print_more_than_a_pipe_holds() {
    let script = Script::shell("head -c 1000000 /dev/zero");
    script
        .hook()
        .with_time_limit(Duration::from_secs(20))
        .run(Path::new(MOUNT_POINT))
        .unwrap();
}

fn failures_are_told_apart() {
    let check = |script: Script, want| assert_eq!(failure(&script.hook()), want);
    check(Script::shell("exit 3"), HookFailure::ExitStatus(3));
    check(Script::shell("kill -TERM $$"), HookFailure::Signal(15));
    check(Script::new("#!/bin/sh\n", 0o644), HookFailure::NotExecutable);
    check(
        Script::new("#!/gone/interpreter\n", 0o755),
        HookFailure::InterpreterMissing,
    );
    check(Script::new("neither", 0o755), HookFailure::NotAProgram);
    let script = Script::shell("");
    assert_eq!(
        failure(&RemountHook::new(script.base.path().join("gone"))),
        HookFailure::Missing
    );
    assert_eq!(
        failure(&RemountHook::new(script.path.join("below a file"))),
        HookFailure::Missing
    );
    assert_eq!(
        failure(&RemountHook::new(script.base.path())),
        HookFailure::NotExecutable
    );
}

fn is_not_searched_in_path() {
    assert_eq!(failure(&RemountHook::new("true")), HookFailure::Missing);
}

fn that_hangs_is_killed_with_its_children() {
    let script = Script::shell("sleep 100 2>/dev/null & echo $! >\"$0.child\"; wait");
    let limit = Duration::from_millis(300);
    let start = Instant::now();
    assert_eq!(
        failure(&script.hook().with_time_limit(limit)),
        HookFailure::TimedOut(limit)
    );
    let took = start.elapsed();
    assert!(took >= limit && took < Duration::from_secs(60), "{took:?}");
    let child = fs::read_to_string(script.path.with_extension("child")).unwrap();
    let child = PathBuf::from(format!("/proc/{}", child.trim()));
    // It is somebody else's child by now, who may take a moment to reap it.
    let is_gone = || fs::read_to_string(child.join("stat")).map_or(true, |stat| stat.contains(") Z "));
    while !is_gone() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the hook's child outlived it"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn may_leave_a_process_behind() {
    // It inherits the standard output of the hook, and nobody may wait for it to be closed.
    let script = Script::shell("sleep 30 2>/dev/null & exit 0");
    let start = Instant::now();
    script.hook().run(Path::new(MOUNT_POINT)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
}

fn error_says_what_to_do() {
    let script = Script::shell("exit 32");
    let text = script.hook().run(Path::new(MOUNT_POINT)).unwrap_err().to_string();
    let path = script.path.display().to_string();
    for needed in [
        path.as_str(),
        MOUNT_POINT,
        "exit status 32",
        "deletions stand",
        "`superpose remount`",
        "util-linux 2.41",
    ] {
        assert!(text.contains(needed), "{needed:?} is missing in: {text}");
    }
}
