//! Disks and file systems of a test's own. They need root; what is mounted is seen by the test's thread alone and goes with it.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part; these helpers are for tests alone")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// Runs a program that must succeed, and returns what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// From now on what this thread mounts is nobody else's.
pub fn mount_for_myself() {
    // SAFETY: changes this thread's view of the file systems alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "the tests of disks need root");
    run("mount", &["--make-rprivate", "/"]);
}

/// What is mounted on a directory, while this is there. Only in a thread that mounts for itself.
pub struct Mount(PathBuf);

impl Mount {
    /// Runs `mount` with these arguments and the directory.
    pub fn new(arguments: &[&str], directory: &Path) -> Self {
        run("mount", &[arguments, &[directory.to_str().unwrap()]].concat());
        Self(directory.to_owned())
    }

    pub fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A block device in a file. The kernel ends it with its last user, however that ends.
pub struct LoopDevice {
    pub path: PathBuf,
    _keep: File,
}

impl LoopDevice {
    pub fn new(directory: &Path, size_bytes: u64) -> Self {
        let image = directory.join("image");
        File::create(&image).unwrap().set_len(size_bytes).unwrap();
        let path = run("losetup", &["--find", "--show", image.to_str().unwrap()]);
        let keep = File::open(&path).unwrap();
        run("losetup", &["--detach", &path]);
        Self { path: path.into(), _keep: keep }
    }

    pub fn set_read_only(&self, is_read_only: bool) {
        run("blockdev", &[if is_read_only { "--setro" } else { "--setrw" }, self.name()]);
    }

    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// A file that fails as it is told to: see `failing_disk.py`.
pub struct FailingDisk {
    server: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub path: PathBuf,
    mount: Option<Mount>,
}

impl FailingDisk {
    /// Mounts it on a directory; only in a thread that mounts for itself.
    pub fn new(directory: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/failing_disk.py");
        let mut server = Command::new("python3")
            .arg(script)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = server.stdin.take();
        let answers = BufReader::new(server.stdout.take().unwrap());
        let mut disk = Self { server, commands, answers, path: directory.join("disk"), mount: None };
        disk.wait();
        disk.mount = Some(Mount(directory.to_owned()));
        disk
    }

    /// Gives it a command, and waits until it has obeyed.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        self.wait();
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ok\n");
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.server.wait();
        drop(self.mount.take());
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
