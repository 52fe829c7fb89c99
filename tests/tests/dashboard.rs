//! The dashboard in a real browser.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tmem_tests::{Chromium, Daemon, succeed, tool};

const WIDE: u32 = 1280;
const PHONE: u32 = 360;

fn daemon(address: &str) -> Result<Daemon> {
    Daemon::start_with("64M", &["--http".to_owned(), address.to_owned()], None)
}

fn url(daemon: &Daemon) -> Result<String> {
    Ok(format!("http://{}/", daemon.status()?["http"].as_str().context("no HTTP listener")?))
}

/// One request of a balancer's.
fn report(daemon: &Daemon, report: &Value) -> Result<()> {
    let mut stream = UnixStream::connect(daemon.directory().join("run/admin.sock"))?;
    let body = report.to_string();
    write!(
        stream,
        "POST /api/v1/balance HTTP/1.1\r\nHost: tmem\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

fn guest(name: &str, size_mib: u64, target_mib: u64) -> Value {
    json!({
        "name": name, "kind": "qemu", "size_bytes": size_mib << 20, "target_bytes": target_mib << 20, "floor_bytes": 64 << 20,
        "ceiling_bytes": 1 << 30, "weight": 100, "answers": true, "available_bytes": null, "pressure": 0.0,
        "reason": "idle: tried with a little less", "trouble": null
    })
}

fn balancer(guests: &[Value], decided: &[&str]) -> Value {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let decision = |guest: &&str| {
        json!({
            "unix_ms": now_ms as u64, "guest": guest, "from_bytes": 256 << 20, "to_bytes": 320 << 20,
            "reason": "thrashing: 310 swap-ins a second, 280 of them saved by 64M more"
        })
    };
    json!({
        "pid": 4711, "policy": "reuse", "dry_run": false, "interval_seconds": 5.0, "budget_bytes": 2u64 << 30, "guests": guests,
        "decisions": decided.iter().map(decision).collect::<Vec<_>>(), "heard": 0
    })
}

/// Writes and reads pages that do not compress as well as zeroes.
fn swap(daemon: &Daemon, disk: &str, mib: u64) -> Result<()> {
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    let script = format!(
        "import random\nrandom.seed(1)\nfor i in range({mib}):\n  data = (random.randbytes(1024) + bytes(1024)) * 512\n  \
         h.pwrite(data, i << 20)\n  assert h.pread(1 << 20, i << 20) == data\n"
    );
    let uri = format!("nbd+unix:///{disk}?socket={socket}");
    succeed(tool("nbdsh", &["-u", &uri, "-c", &script])?).map(drop)
}

fn add_disk(daemon: &Daemon, name: &str) -> Result<()> {
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    daemon.add_nbd_disk(name, "1G", &socket, &[]).map(drop)
}

/// Whether there is a row of this guest in the table, as an expression in the page.
fn has_row(name: &str) -> String {
    let name = json!(name);
    format!("[...document.querySelectorAll('tbody th[scope=row]')].some(cell => cell.innerText == {name})")
}

fn ensure_no_complaints(browser: &mut Chromium) -> Result<()> {
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "the browser complains:\n{}", complaints.join("\n"));
    Ok(())
}

#[test]
fn it_changes_by_itself_as_guests_come_swap_and_leave() -> Result<()> {
    // A port of our own choice: with 0, the worker after one that dies has another.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let daemon = daemon(&address)?;
    let mut browser = Chromium::start(WIDE)?;
    browser.open(&url(&daemon)?)?;
    let text = browser.text()?;
    for hint in ["tmem disk add", "tmem balance start", "tmem serve --tier", "Nothing needs attention."] {
        ensure!(text.contains(hint), "{hint}: {text}");
    }
    browser.picture("empty")?;
    // A page that is loaded again has no such mark.
    browser.evaluate("window.mark = 'the same page'")?;
    add_disk(&daemon, "web1")?;
    browser.wait_until("a row of the disk", &has_row("web1"))?;
    swap(&daemon, "web1", 8)?;
    let number = "parseInt(document.querySelectorAll('.tile .number')[2].innerText)";
    browser.wait_until("uncompressed pages", &format!("{number} >= 8"))?;
    browser
        .wait_until("a chart of the disk", "document.querySelectorAll('article svg.chart').length == 2")?;
    browser.wait_until(
        "a line of what was swapped in",
        "document.querySelector('article figure:nth-of-type(2) polyline.ink-in')?.points.length > 1",
    )?;
    // What is open stays open.
    browser.evaluate("document.querySelector('details').open = true")?;
    add_disk(&daemon, "db1")?;
    browser.wait_until("a row of the other disk", &has_row("db1"))?;
    ensure!(browser.evaluate("document.querySelector('details').open")? == true, "closed by a refresh");
    daemon.tmem_ok(&["disk", "rm", "web1"])?;
    browser.wait_until("no row of a disk that was removed", &format!("!{}", has_row("web1")))?;
    ensure_no_complaints(&mut browser)?;
    // What follows a worker that died has a new history, and the page goes on.
    daemon.kill_worker()?;
    browser.wait_until("the death is told", "document.body.innerText.includes('1 worker has died')")?;
    ensure!(browser.evaluate(&has_row("db1"))? == true);
    ensure!(browser.evaluate("window.mark")? == "the same page");
    daemon.stop().map(drop)
}

#[test]
fn it_rests_while_nobody_looks() -> Result<()> {
    let daemon = daemon("127.0.0.1:0")?;
    let mut browser = Chromium::start(WIDE)?;
    browser.open(&url(&daemon)?)?;
    let asked =
        "performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('/fragment')).length";
    browser.wait_until("it asks", &format!("{asked} > 0"))?;
    let look = |is_hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {is_hidden}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.evaluate(&look(true))?;
    // Longer than an answer may take, and then than two would have been asked for.
    thread::sleep(Duration::from_secs(5));
    let before = browser.evaluate(asked)?;
    thread::sleep(Duration::from_secs(12));
    ensure!(browser.evaluate(asked)? == before, "it asks though nobody looks");
    browser.evaluate(&look(false))?;
    browser.wait_until("it asks again", &format!("{asked} > {before}"))?;
    ensure!(browser.evaluate("document.getElementById('silence').hidden")? == true);
    ensure_no_complaints(&mut browser)?;
    daemon.stop().map(drop)
}

#[test]
fn it_shows_what_the_balancer_decides_and_runs_nothing_of_it() -> Result<()> {
    let daemon = daemon("127.0.0.1:0")?;
    add_disk(&daemon, "web1")?;
    swap(&daemon, "web1", 4)?;
    let evil = "<img src=x onerror=\"window.evil=1\"><script>window.evil=2</script>";
    let mut silent = guest("db1", 512, 512);
    silent["answers"] = json!(false);
    let guests = [guest("web1", 256, 320), silent, guest(evil, 128, 128)];
    report(&daemon, &balancer(&guests, &["web1", evil]))?;
    let mut browser = Chromium::start(WIDE)?;
    browser.open(&url(&daemon)?)?;
    for name in ["web1", "db1", evil] {
        browser.wait_until("a row of each guest", &has_row(name))?;
    }
    browser.wait_until("a card of each guest", "document.querySelectorAll('article').length == 3")?;
    let text = browser.text()?;
    for words in
        ["310 swap-ins a second", "▲ 320M", "does not answer the balancer", "idle: tried with a little less"]
    {
        ensure!(text.contains(words), "{words}: {text}");
    }
    report(&daemon, &balancer(&guests, &["db1"]))?;
    let decided = "document.querySelectorAll('[aria-label=\"Last decisions\"] tbody tr').length";
    browser.wait_until("the next decision", &format!("{decided} == 3"))?;
    ensure!(browser.evaluate("typeof window.evil")? == "undefined", "a guest's name was run");
    ensure_no_complaints(&mut browser)?;
    // The second wall: what would get into the page would not be run either, and that is told.
    browser.evaluate(&format!(
        "document.body.append(document.createRange().createContextualFragment({}))",
        json!(evil)
    ))?;
    browser.wait_until("it is there", "!!document.querySelector('img')")?;
    ensure!(browser.evaluate("typeof window.evil")? == "undefined", "an inline script was run");
    ensure!(!browser.complaints().is_empty(), "nothing is said of it");
    // The balancer says nothing any more.
    browser.wait_until("no balancer", "document.body.innerText.includes('No balancer reports')")?;
    ensure!(browser.evaluate(&has_row("web1"))? == true && browser.evaluate(&has_row("db1"))? == false);
    daemon.stop().map(drop)
}

/// Contrast of all text against what is behind it, as WCAG counts it; what is below 4.5 is listed.
const FAINT: &str = r"(() => {
    const channel = v => (v /= 255, v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    const light = c => { const [r, g, b] = c.match(/[\d.]+/g).map(Number); return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b); };
    const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
    const faint = [];
    for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some(n => n.nodeType == 3 && n.nodeValue.trim()) || !e.getClientRects().length) continue;
        const style = getComputedStyle(e), ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
        const [a, b] = [light(ink), light(behind(e))].sort((a, b) => b - a);
        if ((a + .05) / (b + .05) < 4.5) faint.push(e.outerHTML.slice(0, 80) + ' ' + ink + ' on ' + behind(e));
    }
    return faint;
})()";

#[test]
fn it_fits_a_phone_and_can_be_read_light_and_dark() -> Result<()> {
    let daemon = daemon("127.0.0.1:0")?;
    let long = "a-guest-with-a-name-that-is-as-long-as-names-of-disks-may-be-63";
    for name in ["web1", long] {
        add_disk(&daemon, name)?;
    }
    swap(&daemon, "web1", 16)?;
    let mut wrong = guest("db1", 700, 400);
    wrong["trouble"] = json!(format!("its monitor /run/libvirt/qemu/{} is silent", "x".repeat(100)));
    let guests = [guest("web1", 256, 320), guest(long, 512, 480), wrong];
    report(&daemon, &balancer(&guests, &["web1", long]))?;
    let mut browser = Chromium::start(PHONE)?;
    browser.open(&url(&daemon)?)?;
    browser.wait_until("charts", "document.querySelectorAll('article svg.chart').length >= 5")?;
    let mut backgrounds = Vec::new();
    for (name, is_dark) in [("light", false), ("dark", true)] {
        browser.set_dark(is_dark)?;
        for width in [PHONE, WIDE] {
            browser.set_width(width)?;
            report(&daemon, &balancer(&guests, &[]))?;
            let needed = browser.evaluate("document.documentElement.scrollWidth")?;
            browser.picture(&format!("{name}-{width}"))?;
            ensure!(needed.as_u64() <= Some(width.into()), "{needed} pixels, where {width} are there");
            let faint = browser.evaluate(FAINT)?;
            ensure!(faint == json!([]), "hard to read when {name}: {faint:#}");
        }
        backgrounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor")?);
    }
    ensure!(backgrounds[0] != backgrounds[1], "{backgrounds:?}");
    // In one go: a refresh in between would take it out again.
    let faint = "document.querySelector('.number').innerHTML = '<b>faint</b>', \
                 document.querySelector('.number b').style.color = 'rgb(90, 90, 90)'";
    let found = browser.evaluate(&format!("{faint}, {FAINT}"))?;
    ensure!(found.as_array().map(Vec::len) == Some(1), "faint text is not found: {found}");
    let unnamed = "[...document.querySelectorAll('svg.chart')].filter(svg => !svg.querySelector('title').textContent).length";
    ensure!(browser.evaluate(unnamed)? == 0);
    ensure_no_complaints(&mut browser)?;
    daemon.stop().map(drop)
}

#[test]
fn it_says_when_the_daemon_is_silent_and_goes_on_when_it_is_back() -> Result<()> {
    let first = daemon("127.0.0.1:0")?;
    let url = url(&first)?;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    add_disk(&first, "before")?;
    let mut browser = Chromium::start(WIDE)?;
    browser.open(&url)?;
    ensure!(browser.evaluate("document.getElementById('silence').hidden")? == true);
    browser.evaluate("window.mark = 'the same page'")?;
    ensure_no_complaints(&mut browser)?;
    first.stop()?;
    browser.wait_until(
        "it says that nobody answers",
        "/No answer from the daemon\\s+since \\d+ s/.test(document.getElementById('silence').innerText)",
    )?;
    ensure!(browser.evaluate(&has_row("before"))? == true, "the last that was known stays");
    browser.picture("silent")?;
    let second = daemon(&address)?;
    add_disk(&second, "after")?;
    browser.wait_until("the next daemon's disk", &has_row("after"))?;
    browser.wait_until("it is content", "document.getElementById('silence').hidden")?;
    ensure!(browser.evaluate("window.mark")? == "the same page");
    second.stop().map(drop)
}

#[test]
fn it_works_without_script() -> Result<()> {
    let daemon = daemon("127.0.0.1:0")?;
    let mut browser = Chromium::start(WIDE)?;
    browser.disable_scripts()?;
    browser.open(&url(&daemon)?)?;
    thread::sleep(Duration::from_millis(100));
    add_disk(&daemon, "web1")?;
    browser.wait_until("a row of the disk", &has_row("web1"))?;
    ensure_no_complaints(&mut browser)?;
    daemon.stop().map(drop)
}
