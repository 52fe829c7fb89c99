//! A browser that a test tells what to do: Debian's Chromium without a window, over the DevTools protocol on a pair of pipes.

use std::{
    fs::File,
    io::{BufRead, BufReader, PipeReader, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{places, process::Process, tool::tool};

/// Chromium takes seconds to start, on a busy machine many.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);
/// Where Chromium has its ends of the pipes.
const COMMANDS_FD: RawFd = 3;
const ANSWERS_FD: RawFd = 4;
/// Messages end with this.
const END: u8 = 0;

/// One page in a browser of its own. Dropping it ends the browser.
pub struct Chromium {
    commands: std::io::PipeWriter,
    messages: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    complaints: Vec<String>,
    process: Process,
    _profile: TempDir,
}

impl Chromium {
    /// Starts a browser with an empty page of this width, in pixels.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(width: u32) -> Result<Self> {
        let profile = places::scratch()?;
        let mut command = tool("chromium", &["--headless", "--remote-debugging-pipe", "about:blank"])?;
        // As root there is no sandbox; a container's /dev/shm is too small for it.
        command.args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]);
        command.args([
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // It is killed in the end, and leaves there what it has.
        command.env("TMPDIR", profile.path());
        let (commands, answers) = pipes(&mut command)?;
        let process = Process::start("chromium", &mut command)?;
        // Its ends of the pipes go with the command: ours shows the end when the browser is gone.
        drop(command);
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(answers).split(END).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            commands,
            messages,
            session: None,
            last_id: 0,
            complaints: Vec::new(),
            process,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?["targetId"].take();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = browser.call("Target.attachToTarget", attach)?["sessionId"].take();
        browser.session = Some(session.as_str().context("a session")?.to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.set_width(width)?;
        Ok(browser)
    }

    /// Makes the page so wide.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn set_width(&mut self, width: u32) -> Result<()> {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// Has the page light or dark.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn set_dark(&mut self, is_dark: bool) -> Result<()> {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// Runs no script of the page's any more.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn disable_scripts(&mut self) -> Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": true })).map(drop)
    }

    /// Loads a page and waits until it is there.
    ///
    /// # Errors
    /// It does not come.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(answer["errorText"].is_null(), "{url}: {answer}");
        self.wait_until(
            "the page is there",
            &format!("document.readyState == 'complete' && location.href == '{url}'"),
        )
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// It throws, or is no JSON.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let mut answer =
            self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }))?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        Ok(answer["result"]["value"].take())
    }

    /// What of the page can be read.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn text(&mut self) -> Result<String> {
        Ok(self.evaluate("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Errors
    /// The time is up; `what` says what did not come true.
    pub fn wait_until(&mut self, what: &str, expression: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.evaluate(expression)? != true {
            if Instant::now() > deadline {
                bail!("not within {PATIENCE:?}: {what}; the page says:\n{}", self.text()?);
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Errors and warnings of the page's so far: uncaught exceptions, what is written to the console, what was blocked or did not load.
    pub fn complaints(&mut self) -> &[String] {
        while let Ok(message) = self.messages.try_recv() {
            self.note(&message);
        }
        &self.complaints
    }

    /// A picture of the whole page, as PNG, if `TMEM_PICTURES` names a folder: for those who want to look.
    ///
    /// # Errors
    /// It cannot be taken or written.
    pub fn picture(&mut self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("TMEM_PICTURES") else { return Ok(()) };
        let options = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", options)?["data"].take();
        let bytes = base64(picture.as_str().context("a picture")?);
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), bytes)
            .context("cannot write a picture")
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&command)?;
        bytes.push(END);
        self.commands.write_all(&bytes).context("chromium is gone")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut message = self.messages.recv_timeout(left).with_context(|| {
                format!("chromium does not answer to {method}:\n{}", self.process.lines().join("\n"))
            })?;
            if message["id"] == self.last_id {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].take());
            }
            self.note(&message);
        }
    }

    /// Remembers a complaint, if it is one.
    fn note(&mut self, message: &Value) {
        let (method, parameters) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let is_complaint = match method {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => parameters["type"] != "log",
            "Log.entryAdded" => {
                parameters["entry"]["level"] != "info" && parameters["entry"]["level"] != "verbose"
            }
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }
}

/// Pipes to and from a command, at the numbers that Chromium expects. What is given is our ends.
fn pipes(command: &mut Command) -> Result<(std::io::PipeWriter, PipeReader)> {
    let (commands_out, commands_in) = std::io::pipe().context("cannot make a pipe")?;
    let (answers_out, answers_in) = std::io::pipe().context("cannot make a pipe")?;
    // Out of the way of the numbers that they get in the child: there each move would else overwrite the other's.
    let commands = moved_up(File::from(OwnedFd::from(commands_out)))?;
    let answers = moved_up(File::from(OwnedFd::from(answers_in)))?;
    let place = move || {
        for (from, to) in [(&commands, COMMANDS_FD), (&answers, ANSWERS_FD)] {
            // SAFETY: both are numbers; nothing of this process' child uses the second one yet.
            if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only dup2() is called, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(place) };
    Ok((commands_in, answers_out))
}

/// The same file at a number above those of the child's.
fn moved_up(file: File) -> Result<OwnedFd> {
    // SAFETY: a call on numbers.
    let number = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ANSWERS_FD + 1) };
    ensure!(number >= 0, "cannot duplicate a pipe: {}", std::io::Error::last_os_error());
    // SAFETY: the number is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Bytes of base64 text; padding and anything else ends it.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sixes = text.bytes().map_while(|byte| ALPHABET.iter().position(|letter| *letter == byte));
    let sixes: Vec<_> = sixes.collect();
    let mut bytes = Vec::with_capacity(sixes.len() * 3 / 4);
    for group in sixes.chunks(4) {
        let bits = group.iter().enumerate().fold(0, |bits, (at, six)| bits | six << (18 - 6 * at));
        let whole = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        bytes.extend(&whole[..group.len() * 6 / 8]);
    }
    bytes
}
