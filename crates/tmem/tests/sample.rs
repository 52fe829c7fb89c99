//! `tmem sample`: what it takes, what it leaves alone, and every way it refuses.

// A failed step is a failed test.
#![allow(clippy::expect_used)]

mod common;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    process::{Child, ChildStdout, Command, Stdio},
};

use common::{Killed, eventually, run, send};
use serde_json::Value;

const PAGE_BYTES: usize = 4096;

/// 100 pages of a pattern, 100 that are only read, one with an end mark, 99 that are never touched; answers each line.
const PATTERN: &str = r#"
import ctypes, mmap, sys
area = mmap.mmap(-1, 300 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
page = lambda text: (text * 512)[:4096]
for i in range(100):
    area[i * 4096:(i + 1) * 4096] = page(b"tmem pattern %06d." % i)
for i in range(100, 200):
    assert area[i * 4096] == 0
area[200 * 4096:201 * 4096] = page(b"tmem end mark.")
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
for line in sys.stdin:
    print("alive", flush=True)
"#;

/// Numbers that are in memory where they were stored and nowhere else: Python keeps its own in another form.
const FIRST: u64 = 0x7465_6d31_9e37_79b9;
const SECOND: u64 = 0x7465_6d32_7f4a_7c15;

/// Counts, in two pages far apart, as fast as it can, while another thread sleeps.
const COUNTER: &str = r#"
import ctypes, mmap, threading, time
area = mmap.mmap(-1, 300 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
word = lambda at: ctypes.c_uint64.from_buffer(area, at)
word(0).value, word(299 * 4096).value = FIRST, SECOND
first, second = word(8), word(299 * 4096 + 8)
print("ready", flush=True)
count = 0
while True:
    count += 1
    first.value = count
    second.value = count
"#;

struct Program {
    child: Killed,
    pid: u32,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(job: &str) -> (Self, String) {
        let mut child = Command::new("python3")
            .args(["-c", job])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut program = Self { pid: child.id(), child: Killed(Some(child)), stdout };
        let first = program.line();
        (program, first)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("line");
        line.trim().to_owned()
    }

    fn child(&mut self) -> &mut Child {
        self.child.0.as_mut().expect("child")
    }

    fn is_alive(&mut self) -> bool {
        let stdin = self.child().stdin.as_mut().expect("stdin");
        stdin.write_all(b"?\n").expect("ask");
        self.line() == "alive"
    }

    fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("field");
        line.trim_start_matches(':').trim().to_owned()
    }

    fn is_present(&self, address: u64) -> bool {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid)).expect("pagemap");
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, address / PAGE_BYTES as u64 * 8).expect("entry");
        u64::from_ne_bytes(entry) >> 63 == 1
    }
}

/// Frame numbers, which tell the kernel's page of zeroes apart, are for root.
fn is_root() -> bool {
    // SAFETY: touches no memory.
    unsafe { libc::geteuid() == 0 }
}

fn sample(program: &Program, more: &[&str]) -> (Vec<Vec<u8>>, Value) {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("pages");
    let (pid, out) = (program.pid.to_string(), out.to_str().expect("UTF-8"));
    let said = run(&[&["sample", "--json", "--pid", &pid, "--out", out][..], more].concat()).ok();
    let mut bytes = Vec::new();
    File::open(out).expect("out").read_to_end(&mut bytes).expect("read");
    assert_eq!(
        fs::metadata(out).expect("out").permissions().mode() & 0o777,
        0o600,
        "it is somebody's memory"
    );
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "nothing beside the file");
    let (pages, rest) = bytes.as_chunks::<PAGE_BYTES>();
    assert!(rest.is_empty(), "{} bytes", bytes.len());
    (pages.iter().map(|page| page.to_vec()).collect(), serde_json::from_str(&said).expect("JSON"))
}

#[test]
fn resident_pages_are_taken_side_by_side_and_nothing_else_is_touched() {
    for more in [&[][..], &["--stop"]] {
        let (mut program, address) = Program::start(PATTERN);
        let address: u64 = address.parse().expect("address");
        let (pages, said) = sample(&program, more);
        assert_eq!(said["pages"], pages.len());
        assert_eq!(said["pid"], program.pid);
        assert_eq!(said["resident_anonymous_pages"], pages.len());
        assert!(said["mapped_pages"].as_u64() >= said["pages"].as_u64());
        // Somewhere in its memory the program may have kept a copy of a page, but not of two in order.
        let is_start = |two: &[Vec<u8>]| {
            two[0].starts_with(b"tmem pattern 000000.") && two[1].starts_with(b"tmem pattern 000001.")
        };
        let start = pages.windows(2).position(is_start).expect("the pattern");
        for i in 0..100 {
            let expected = format!("tmem pattern {i:06}.").repeat(256);
            assert!(pages[start + i] == expected.as_bytes()[..PAGE_BYTES], "page {i}");
        }
        if is_root() {
            // What was only read is the kernel's page of zeroes, not the program's.
            assert!(pages[start + 100].starts_with(b"tmem end mark."));
        }
        for i in 201..300 {
            assert!(!program.is_present(address + i * PAGE_BYTES as u64), "page {i} was brought in");
        }
        assert_eq!(program.status("TracerPid"), "0");
        assert!(program.is_alive());
    }
}

#[test]
fn a_limit_is_kept() {
    let (program, _) = Program::start(PATTERN);
    for limit in [1, 10, 1000] {
        let (pages, said) = sample(&program, &["--max-pages", &limit.to_string()]);
        assert_eq!(said["pages"], pages.len());
        assert!(
            (limit / 2..=limit).contains(&pages.len()) && !pages.is_empty(),
            "{} of {limit}",
            pages.len()
        );
        assert!(said["resident_anonymous_pages"].as_u64() > Some(1000), "{said}");
    }
}

#[test]
fn a_held_process_is_of_one_moment_and_goes_on() {
    let job = COUNTER.replace("FIRST", &FIRST.to_string()).replace("SECOND", &SECOND.to_string());
    let (program, _) = Program::start(&job);
    let counts = |pages: &[Vec<u8>]| {
        [FIRST, SECOND].map(|mark| {
            let page = pages.iter().find(|page| page[..8] == mark.to_ne_bytes()).expect("marked page");
            u64::from_ne_bytes(page[8..16].try_into().expect("8 bytes"))
        })
    };
    let mut last = None;
    for _ in 0..5 {
        eventually("the program goes on", || {
            let [first, second] = counts(&sample(&program, &["--stop"]).0);
            assert!(first - second <= 1, "{first} {second}");
            assert_eq!(program.status("TracerPid"), "0");
            let goes_on = last < Some(first);
            last = Some(first);
            goes_on
        });
    }
}

#[test]
fn a_stopped_process_stays_stopped() {
    let (mut program, _) = Program::start(PATTERN);
    send(program.pid, libc::SIGSTOP);
    eventually("the program stops", || program.status("State").starts_with('T'));
    for more in [&[][..], &["--stop"]] {
        let (pages, _) = sample(&program, more);
        assert!(pages.iter().any(|page| page.starts_with(b"tmem end mark.")));
        eventually("the program is let go", || program.status("TracerPid") == "0");
        eventually("the program is stopped as before", || program.status("State").starts_with('T'));
    }
    send(program.pid, libc::SIGCONT);
    assert!(program.is_alive());
}

#[test]
fn an_existing_file_is_kept_unless_told_otherwise() {
    let (program, _) = Program::start(PATTERN);
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), "precious").expect("write");
    let (pid, out) = (program.pid.to_string(), file.path().to_str().expect("UTF-8"));
    let line = ["sample", "--pid", &pid, "--out", out];
    run(&line).fails(1, &[out, "--force"]);
    assert_eq!(fs::read(file.path()).expect("read"), b"precious");
    let said = run(&[&line[..], &["--force"]].concat()).ok();
    assert!(said.starts_with(out) && said.matches('\n').count() == 1, "{said}");
    let pages = fs::metadata(file.path()).expect("file").len() / PAGE_BYTES as u64;
    assert!(said.contains(&format!(": {pages} pages (")) && said.contains(" 0 vanished"), "{said}");
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let mut ended = Command::new("true").spawn().expect("true");
    ended.wait().expect("wait");
    let gone = ended.id().to_string();
    let own = std::process::id().to_string();
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (out, missing, here) = (path("out"), path("missing/out"), path("."));
    for (pid, out, code, mentions) in [
        (gone.as_str(), &out, 1, &[gone.as_str(), "pgrep"][..]),
        ("0", &out, 2, &["--pid"]),
        ("x", &out, 2, &["--pid"]),
        (&own, &missing, 1, &["missing/out", "folder"]),
        (&own, &here, 1, &["not a regular file"]),
        ("2", &out, 1, &["process 2"]),
    ] {
        run(&["sample", "--pid", pid, "--out", out]).fails(code, mentions);
    }
    run(&["sample", "--pid", &own, "--out", &out, "--max-pages", "0"]).fails(2, &["--max-pages"]);
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
}
