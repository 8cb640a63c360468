// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the trials run: the stages of the process, and what a trial needs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Failed, Trial};

/// The first argument of a process that was started by this suite says in which stage it is.
const STAGE: &str = "--superpose-stage=";

/// Uid and gid of the ordinary user that root becomes for the trials in a user namespace.
const NOBODY: &str = "65534";

/// What a trial gives.
pub(crate) type Outcome = Result<(), Failed>;

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
    name: &'static str,
    run: fn() -> Outcome,
    needs: Needs,
    kernel: (u32, u32),
    program: Option<&'static str>,
}

impl Case {
    pub(crate) fn new(name: &'static str, run: fn() -> Outcome) -> Self {
        Self {
            name,
            run,
            needs: Needs::Mounts,
            kernel: (0, 0),
            program: None,
        }
    }

    pub(crate) fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Needs this version of Linux.
    pub(crate) fn kernel(self, major: u32, minor: u32) -> Self {
        Self {
            kernel: (major, minor),
            ..self
        }
    }

    /// Needs this program to be installed.
    pub(crate) fn program(self, program: &'static str) -> Self {
        Self {
            program: Some(program),
            ..self
        }
    }

    /// What keeps it from running here.
    fn lack(&self, stage: Stage) -> Option<String> {
        let (major, minor) = self.kernel;
        match (stage, self.needs) {
            (Stage::Nowhere, _) => Some("neither root nor a user namespace".to_owned()),
            (Stage::User, Needs::Root) => Some("not root".to_owned()),
            (Stage::Root, Needs::UserNamespace) if !nobody_can_unshare() => {
                Some("no user namespaces for ordinary users".to_owned())
            }
            _ if running_kernel() < self.kernel => Some(format!("Linux older than {major}.{minor}")),
            _ => self
                .program
                .filter(|program| !is_installed(program))
                .map(|program| format!("no {program}")),
        }
    }
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
    let lack = case.lack(stage);
    let Case { name, run, needs, .. } = case;
    match (lack, stage, needs) {
        (Some(lack), _, _) => Trial::test(format!("{name} [ignored: {lack}]"), run).with_ignored_flag(true),
        (None, Stage::Root, Needs::UserNamespace) => Trial::test(name, move || as_nobody(name)),
        _ => Trial::test(name, run),
    }
}

/// Runs one trial as an ordinary user in a user namespace.
fn as_nobody(name: &str) -> Outcome {
    // The build directory may be closed to others.
    let directory = tempfile::tempdir()?;
    open_to_all(directory.path());
    let program = directory.path().join("real");
    // Another process writes the copy: a file that this one has open for writing is inherited by whatever other trials
    // start meanwhile, and cannot be run until they let go of it.
    let mut copy = Command::new("install");
    copy.args(["-m", "755", "--"])
        .arg(std::env::current_exe()?)
        .arg(&program);
    if !copy.status()?.success() {
        return Err(Failed::from("the program cannot be copied"));
    }
    let output = nobody(&program)
        .arg(format!("{STAGE}user"))
        .args(["--exact", name])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A name that matches nothing would pass as well.
    if !output.status.success() || !text.contains("1 passed") {
        return Err(Failed::from(format!(
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(())
}

/// A program to be run by an ordinary user who is root of a user namespace.
fn nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
    command
        .args(["unshare", "-Urm", "--propagation", "private", "--"])
        .arg(program)
        .current_dir("/");
    command
}

fn nobody_can_unshare() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        nobody(Path::new("true"))
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

fn running_kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
