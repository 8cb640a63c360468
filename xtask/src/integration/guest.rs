// SPDX-License-Identifier: MIT OR Apache-2.0
//! One emulated machine: its order, its disks, its command line; started, watched, and judged.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::accelerator::Accelerator;
use super::cpio::Cpio;
use super::disk::Disk;
use super::kernel::Kernel;
use super::room::Room;
use super::share::{self, Share};
use super::verdict::Verdict;

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// A fault of the kernel ends it. The watchdogs are off: they would complain of a host that has other things to do.
/// Programs lie at the same addresses in every process: where code is emulated, what was translated for one is there for
/// the next, which is then four times as fast.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet oops=panic panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 norandmaps";

/// What a guest may take of a processor that does little more than start, which takes five seconds.
const TIME_LIMIT: Duration = Duration::from_secs(45);

/// So many times as long may pass on the clock, while other work has the processors or the guest waits.
const PATIENCE: u32 = 5;

/// How often a running guest is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A machine about to be started.
pub(crate) struct Guest<'a> {
    room: &'a Room,
    kernel: &'a Kernel,
    accelerator: Accelerator,
    name: String,
    part: &'static str,
    arguments: Map<String, Value>,
    disks: Vec<Disk>,
    shares: Vec<Share>,
    network: Option<[String; 4]>,
    memory: u32,
    limit: Duration,
    fault: Option<&'static str>,
}

/// The guest's own kernel was at fault: the work may be tried once more.
#[derive(Debug)]
pub(crate) struct KernelFault(pub(crate) String);

impl std::fmt::Display for KernelFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KernelFault {}

/// What a guest was started for has failed.
#[derive(Debug)]
pub(crate) struct PartFailed(pub(crate) String);

impl std::fmt::Display for PartFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PartFailed {}

impl<'a> Guest<'a> {
    /// A machine that runs a part of the guest's program; `name` is that of its log.
    pub(crate) fn new(room: &'a Room, kernel: &'a Kernel, name: &str, part: &'static str) -> Self {
        Self {
            room,
            kernel,
            accelerator: room.accelerator,
            name: format!("{name}-{}", kernel.release.name()),
            part,
            arguments: Map::new(),
            disks: vec![Disk::read_only("tools", &room.tools.image)],
            shares: Vec::new(),
            network: None,
            memory: 1024,
            limit: TIME_LIMIT,
            fault: room.fault,
        }
    }

    /// Adds an argument of the part.
    pub(crate) fn argument(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a disk; those that say where are mounted in this order.
    pub(crate) fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Gives it a directory of the host.
    pub(crate) fn share(mut self, share: Share) -> Self {
        self.shares.push(share);
        self
    }

    /// Has it reach a socket of the host, and nothing else; the order has the address as `server`.
    pub(crate) fn server(mut self, socket: &Path) -> Result<Self> {
        self.network = Some(share::network(&self.room.programs.guest, socket)?);
        Ok(self.argument("server", share::ADDRESS))
    }

    /// Sets its memory, in mebibytes.
    pub(crate) fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Sets how much of a processor's time it may take; of that on the clock it gets five times as much.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves out the fault that the program is to have in this run.
    pub(crate) fn without_fault(mut self) -> Self {
        self.fault = None;
        self
    }

    /// Sets what makes it run, before that is decided for all.
    pub(crate) fn accelerator(mut self, accelerator: Accelerator) -> Self {
        self.accelerator = accelerator;
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Result<Ended> {
        self.start()?.wait()
    }

    /// Starts it.
    pub(crate) fn start(self) -> Result<Running> {
        let nonce = nonce();
        let files = Files::of(self.room, &self.name)?;
        fs::write(&files.initramfs, self.initramfs(&nonce)?)
            .with_context(|| files.initramfs.display().to_string())?;
        // An old result would be taken for this one's.
        File::create(&files.results).with_context(|| files.results.display().to_string())?;
        let log = File::create(&files.log).with_context(|| files.log.display().to_string())?;
        let mut command = self.command(&files)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("starting {QEMU}"))?;
        let console = child.stdout.take().map(|console| logged(console, log));
        Ok(Running {
            child,
            console,
            files,
            nonce,
            limit: self.room.scaled(self.limit),
            started: Instant::now(),
            status: None,
        })
    }

    fn command(&self, files: &Files) -> Result<Command> {
        let mut command = Command::new(QEMU);
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-smp", "1"]);
        command.args(self.accelerator.arguments());
        command.arg("-m").arg(self.memory.to_string());
        command.arg("-kernel").arg(&self.kernel.image);
        command.arg("-initrd").arg(&files.initramfs);
        command.args(["-append", COMMAND_LINE]);
        command.args(["-serial", "stdio", "-monitor", "none"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.args(["-device", "virtio-serial-pci", "-chardev"]);
        command.arg(format!("file,id=results,path={}", escaped(&files.results)?));
        command.args(["-device", "virtserialport,chardev=results,name=results"]);
        for (index, disk) in self.disks.iter().enumerate() {
            command.args(disk.arguments(index)?);
        }
        for share in &self.shares {
            command.args(share.arguments());
        }
        command.args(self.network.iter().flatten());
        Ok(command)
    }

    /// The program, the modules, and the order, which is an archive of its own behind the rest.
    fn initramfs(&self, nonce: &str) -> Result<Vec<u8>> {
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        let mut cpio = Cpio::default();
        for dir in ["dev", "proc", "sys", "modules"] {
            cpio.directory(dir);
        }
        // The first process speaks through it before anything is mounted.
        cpio.character_device("dev/console", (5, 1));
        cpio.file("init", 0o755, &read(&self.room.programs.guest)?);
        let mut list = String::new();
        for module in &self.kernel.modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            cpio.file(&format!("modules/{name}"), 0o644, &read(module)?);
            list.push_str(&name);
            list.push('\n');
        }
        cpio.file("modules/list", 0o644, list.as_bytes());
        let mut bytes = cpio.finish();
        let shares = self.shares.iter().map(Share::order);
        let mounts: Vec<Value> = self.disks.iter().filter_map(Disk::order).chain(shares).collect();
        let order = json!({
            "part": self.part,
            "nonce": nonce,
            "mounts": mounts,
            "fault": self.fault,
            "arguments": self.arguments,
        });
        let mut cpio = Cpio::default();
        cpio.file("order.json", 0o600, order.to_string().as_bytes());
        bytes.extend(cpio.finish());
        Ok(bytes)
    }
}

/// What belongs to one guest on the host.
#[derive(Debug, Clone)]
struct Files {
    log: PathBuf,
    initramfs: PathBuf,
    results: PathBuf,
}

impl Files {
    fn of(room: &Room, name: &str) -> Result<Self> {
        let dir = room.run_dir(name)?;
        Ok(Self {
            log: room.log(name),
            initramfs: dir.join("initramfs"),
            results: dir.join("results.json"),
        })
    }
}

/// A path inside one of the emulator's options, where a comma would begin the next.
pub(crate) fn escaped(path: &Path) -> Result<String> {
    let text = path.to_str();
    let text = text.with_context(|| format!("{QEMU} cannot be given the path {}", path.display()))?;
    Ok(text.replace(',', ",,"))
}

/// A word that is not in any program that the guest runs.
fn nonce() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{count}", std::process::id(), since.as_nanos())
}

/// A machine that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    /// Ends when the emulator does.
    console: Option<JoinHandle<io::Result<u64>>>,
    files: Files,
    nonce: String,
    limit: Duration,
    started: Instant,
    status: Option<ExitStatus>,
}

impl Running {
    /// What the console said until now.
    pub(crate) fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.files.log).with_context(|| self.files.log.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for its end, but not longer than its time, and judges.
    pub(crate) fn wait(mut self) -> Result<Ended> {
        let mut is_late = false;
        while self.status.is_none() {
            self.status = self.child.try_wait().context("waiting for a guest")?;
            if self.status.is_none() && self.is_late() {
                is_late = true;
                self.kill()?;
            }
            sleep(PAUSE);
        }
        self.finish_log()?;
        let status = self.status.and_then(|status| match status.signal() {
            Some(_) => None,
            None => status.code(),
        });
        let verdict = Verdict::of(&self.console()?, &self.nonce, status, is_late);
        let results = fs::read(&self.files.results).unwrap_or_default();
        Ok(Ended {
            verdict,
            results: serde_json::from_slice(&results).ok(),
        })
    }

    /// The time of the processor counts, so that a machine with much to do fails nothing; that on the clock is for a guest
    /// that waits for what never comes.
    fn is_late(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let used = stat
            .ok()
            .and_then(|stat| processor_time(&stat))
            .unwrap_or_default();
        used > self.limit || self.started.elapsed() > self.limit * PATIENCE
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("looking at a guest")?;
        }
        Ok(self.status.is_none())
    }

    /// Cuts its power.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing a guest")?;
        self.status = Some(self.child.wait().context("waiting for a killed guest")?);
        self.finish_log()
    }

    /// Has all that the console said in the log.
    fn finish_log(&mut self) -> Result<()> {
        let logged = self.console.take().map(JoinHandle::join);
        match logged {
            None | Some(Ok(Ok(_))) => Ok(()),
            Some(Ok(Err(error))) => Err(error).context("writing a guest's log"),
            Some(Err(_)) => bail!("the writer of a guest's log panicked"),
        }
    }
}

/// Writes the log beside the emulator, which stands still with all that it emulates while it writes a file itself: seconds
/// and more on a machine whose disk is busy.
fn logged(mut console: ChildStdout, mut log: File) -> JoinHandle<io::Result<u64>> {
    thread::spawn(move || io::copy(&mut console, &mut log))
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The time that a process took of processors, from its `stat`: the 14th and 15th field, in hundredths of a second. The second
/// field is a name in brackets, with whatever in it.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// A machine that has ended.
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    /// What the part sent, if it did.
    pub(crate) results: Option<Value>,
}

impl Ended {
    /// Expects that the part passed.
    pub(crate) fn passed(self) -> Result<Option<Value>> {
        match self.verdict {
            Verdict::Passed => Ok(self.results),
            Verdict::Oops(_) => Err(KernelFault(self.verdict.to_string()).into()),
            Verdict::Failed(why) => Err(PartFailed(why).into()),
            verdict => bail!("{verdict}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_begins_no_option() {
        assert_eq!(escaped(Path::new("/a,b/c")).unwrap(), "/a,,b/c");
    }

    #[test]
    fn the_time_of_a_processor_is_found_behind_any_name() {
        let stat = "7 (a) b 1) S 1 7 7 0 -1 4 90 0 0 0 250 50 0 0 20 0";
        assert_eq!(processor_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(processor_time("7 (a) S 1"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(processor_time(&own).is_some());
    }

    #[test]
    fn no_two_orders_have_the_same_word() {
        assert_ne!(nonce(), nonce());
    }
}
