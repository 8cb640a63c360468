// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the trials run: the stages of the process, and what a trial needs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// The first argument of a process that was started by this suite says in which stage it is.
const STAGE: &str = "--superpose-stage=";

/// Uid and gid of the ordinary user that root becomes for the trials in a user namespace.
const NOBODY: &str = "65534";

/// What a trial gives: done, or not possible here and why.
pub(crate) type Outcome = Result<Completion, Failed>;

/// What a trial needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A mount namespace in which overlays can be mounted, be it of root or of a user.
    Mounts,
    /// Root of the machine.
    Root,
    /// A user namespace of an ordinary user.
    UserNamespace,
}

/// One trial, before it is known where it runs.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn() -> Outcome,
}

/// Where this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Root in a mount namespace.
    Root,
    /// An ordinary user who is root in a user and mount namespace.
    User,
    /// No namespace is to be had.
    Nowhere,
}

static STAGE_NOW: OnceLock<Stage> = OnceLock::new();

/// Are the trials run inside a user namespace?
pub(crate) fn in_user_namespace() -> bool {
    STAGE_NOW.get() == Some(&Stage::User)
}

pub(crate) fn main(cases: fn() -> Vec<Case>) -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let given = arguments
        .get(1)
        .and_then(|argument| argument.to_str()?.strip_prefix(STAGE));
    let stage = match given {
        Some("root") => Stage::Root,
        Some("user") => Stage::User,
        Some(_) => Stage::Nowhere,
        None => return enter(arguments),
    };
    arguments.remove(1);
    STAGE_NOW.set(stage).expect("set once, here");
    let arguments = Arguments::from_iter(arguments);
    let trials = cases().into_iter().map(|case| trial(case, stage)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Becomes the same program in a namespace, or stays where it is when none is to be had.
fn enter(arguments: Vec<OsString>) -> ExitCode {
    let own = std::env::current_exe().expect("a running program has a path");
    let is_root = rustix::process::geteuid().is_root();
    let private = ["-m", "--propagation", "private"];
    let user = ["-Urm", "--propagation", "private"];
    let (options, stage) = match (is_root, can_unshare(&private), can_unshare(&user)) {
        (true, true, _) => (Some(private), "root"),
        (_, _, true) => (Some(user), "user"),
        _ => (None, "nowhere"),
    };
    let mut command = match options {
        Some(options) => {
            let mut command = Command::new("unshare");
            command.args(options).arg("--").arg(own);
            command
        }
        None => Command::new(own),
    };
    command
        .arg(format!("{STAGE}{stage}"))
        .args(arguments.into_iter().skip(1));
    let error = command.exec();
    panic!("cannot start this program again: {error}");
}

fn can_unshare(options: &[&str]) -> bool {
    let quiet = Command::new("unshare")
        .args(options)
        .args(["--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

fn trial(case: Case, stage: Stage) -> Trial {
    let Case { name, needs, run } = case;
    let lack = match (stage, needs) {
        (Stage::Nowhere, _) => Some("neither root nor a user namespace"),
        (Stage::User, Needs::Root) => Some("not root"),
        _ => None,
    };
    if let Some(lack) = lack {
        return Trial::ignorable_test(format!("{name} (ignored: {lack})"), run).with_ignored_flag(true);
    }
    match (stage, needs) {
        (Stage::Root, Needs::UserNamespace) => Trial::ignorable_test(name, move || as_nobody(name)),
        _ => Trial::ignorable_test(name, run),
    }
}

/// Runs one trial as an ordinary user in a user namespace.
fn as_nobody(name: &str) -> Outcome {
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path());
    let program = directory.path().join("real");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program);
    let nobody = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"];
    let user = ["unshare", "-Urm", "--propagation", "private", "--"];
    let command = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(nobody).args(user).arg(program).current_dir("/");
        command
    };
    if !command(Path::new("true"))
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return Ok(Completion::ignored_with(
            "an ordinary user cannot make a user namespace here",
        ));
    }
    let output = command(&program)
        .arg(format!("{STAGE}user"))
        .args(["--exact", name])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(Failed::from(format!(
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    if text.contains("1 ignored") {
        return Ok(Completion::ignored_with(
            "the trial gave up in its user namespace",
        ));
    }
    assert!(text.contains("1 passed"), "the trial did not run:\n{text}");
    Ok(Completion::Completed)
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
