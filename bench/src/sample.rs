//! Pages of a real program: what a benchmark writes when it was given no file of pages.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
};

use crate::vhost::PAGE_BYTES;

/// A pagemap entry's bit for a page that is in memory.
const PRESENT: u64 = 1 << 63;
/// A pagemap entry's bit for a page of a file or of shared memory, not of the program alone.
const FILE_OR_SHARED: u64 = 1 << 61;

/// Python reads its own library into JSON and syntax trees, says so, and waits for its standard input to close.
const JOB: &str = r#"
import ast, json, pathlib, sys
sources = {path.name: path.read_text(errors="replace") for path in sorted(pathlib.Path(ast.__file__).parent.glob("*.py"))}
words = {name: [line.split() for line in text.splitlines()] for name, text in sources.items()}
copy = json.loads(json.dumps(words))
trees = [ast.parse(text) for text in list(sources.values())[:40]]
print("ready", flush=True)
sys.stdin.read()
"#;

/// A running program that ends with this value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // The program may have ended by itself; there is nothing to do about it either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies up to `limit_pages` resident anonymous pages of a freshly started `python3` that has read its own library.
///
/// The program gets an empty environment. Neighbours stay neighbours. Errors say what failed, in words.
pub(crate) fn python_pages(limit_pages: usize) -> Result<Vec<u8>, String> {
    let child = Command::new("python3")
        .args(["-c", JOB])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3 cannot be started: {error}"))?;
    let mut program = Program(child);
    let stdout = program.0.stdout.take().ok_or("python3 has no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(|error| format!("python3 does not answer: {error}"))?;
    if line.trim() != "ready" {
        return Err("python3 ended before its job was done".into());
    }
    anonymous_pages(program.0.id(), limit_pages)
        .map_err(|error| format!("the memory of python3 cannot be read: {error}"))
}

/// Resident anonymous pages of process `pid`, one after the other, in the order of their addresses.
fn anonymous_pages(pid: u32, limit_pages: usize) -> std::io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut pages = Vec::new();
    for line in maps.lines() {
        let Some((start, end)) = readable_span(line) else { continue };
        for address in (start..end).step_by(PAGE_BYTES) {
            if pages.len() >= limit_pages * PAGE_BYTES {
                return Ok(pages);
            }
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, address / PAGE_BYTES as u64 * 8)?;
            if u64::from_ne_bytes(entry) & (PRESENT | FILE_OR_SHARED) == PRESENT {
                let end = pages.len();
                pages.resize(end + PAGE_BYTES, 0);
                memory.read_exact_at(&mut pages[end..], address)?;
            }
        }
    }
    Ok(pages)
}

/// First and last-plus-one address of a line of `/proc/PID/maps`, if the program itself can read there.
fn readable_span(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    // `[vvar]`, `[vdso]` and `[vsyscall]` are the kernel's.
    if !words.next()?.starts_with('r') || words.any(|word| word.starts_with("[v")) {
        return None;
    }
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_leave_out_what_cannot_be_read() {
        assert_eq!(readable_span("1000-3000 rw-p 00000000 00:00 0 [heap]"), Some((0x1000, 0x3000)));
        assert_eq!(readable_span("1000-3000 ---p 00000000 00:00 0"), None);
        assert_eq!(readable_span("7000-8000 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(readable_span(""), None);
    }

    #[test]
    fn own_memory_is_found_where_it_lies() {
        let mark: Vec<u8> = (0..8 * PAGE_BYTES).map(|i| (i / 7) as u8).collect();
        let pages = anonymous_pages(std::process::id(), usize::MAX / PAGE_BYTES).unwrap();
        assert_eq!(pages.len() % PAGE_BYTES, 0);
        // A run of the marked bytes, at the place within a page where it lies in memory.
        let within = mark.as_ptr() as usize % PAGE_BYTES;
        let needle = &mark[PAGE_BYTES..2 * PAGE_BYTES - within];
        assert!(pages.chunks_exact(PAGE_BYTES).any(|page| page[within..].starts_with(needle)));
    }
}
