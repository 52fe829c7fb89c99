//! Pages of a program started for them: what a benchmark writes when it was given no file of pages.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::process::Process;
use crate::{error::BenchError, interrupt::Interrupt};

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
/// The program gets an empty environment. Neighbours stay neighbours.
pub(crate) fn python_pages(limit_pages: u64) -> Result<Vec<u8>, BenchError> {
    let program = ready_python().map_err(BenchError::Pages)?;
    let mut pages = Vec::new();
    Process::open(program.0.id())?.copy(Some(limit_pages), &Interrupt::default(), |copied| {
        pages.extend_from_slice(copied);
        Ok(())
    })?;
    Ok(pages)
}

fn ready_python() -> Result<Program, String> {
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
    if line.trim() == "ready" { Ok(program) } else { Err("python3 ended before its job was done".into()) }
}
