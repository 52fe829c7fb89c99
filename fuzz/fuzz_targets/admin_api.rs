//! Requests to the admin socket and to the read-only listener, as bytes.
//!
//! The input chooses the beginning of a request, whose length is then right, or is the whole request. A real small store and real disks
//! answer, disks without transports. A request that is refused changes nothing, and neither does anything on the read-only listener. What a balancer
//! reports is never markup on the dashboard.
#![no_main]

mod admin_rig;

use std::cell::RefCell;

use admin_rig::Rig;
use libfuzzer_sys::fuzz_target;
use tmem_control::Access;

thread_local!(static RIG: RefCell<Rig> = RefCell::new(Rig::new()));

/// What requests begin with; `{}` is the input's first line. The last one is for input that is a request already.
const STARTS: [&str; 8] = [
    "PATCH /api/v1/knobs",
    "POST /api/v1/disks",
    "PATCH /api/v1/clients/{}",
    "DELETE /api/v1/disks/{}",
    "GET /api/v1/{}",
    "GET /{}",
    "{}",
    "",
];

fn request(start: &str, input: &[u8]) -> Vec<u8> {
    if start.is_empty() {
        return input.to_vec();
    }
    let (before, after) = start.split_once("{}").unwrap_or((start, ""));
    let mut said = before.as_bytes().to_vec();
    let mut body = input;
    if before != start {
        let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        said.extend(&input[..end]);
        body = input.get(end + 1..).unwrap_or_default();
    }
    said.extend(after.as_bytes());
    said.extend(format!(" HTTP/1.1\r\nhost: tmem\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    said.extend(body);
    said
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// The answer, if the request was one. Every answer is whole and can be told from what is around it.
fn answer(sent: &[u8]) -> Option<Answer> {
    if sent.is_empty() {
        return None;
    }
    let end = sent.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&sent[..end]).expect("a head of text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).expect("a status line");
    let status = status.get(2..5).and_then(|digits| digits.parse().ok()).expect("a status");
    let body = sent[end + 4..].to_vec();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name == "content-type" && value == "application/json" && !body.is_empty() {
            let document: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            if status >= 400 {
                let text = document["error"].as_str().expect("an error in words");
                assert!(!text.is_empty() && !text.contains('\n'), "{text:?} is not one line");
            }
        }
    }
    Some(Answer { status, body })
}

/// What a balancer said is on the page, and none of it is markup.
fn check_page(rig: &Rig) {
    let sent = rig.ask(b"GET / HTTP/1.1\r\nhost: tmem\r\n\r\n".to_vec(), usize::MAX, Access::Reads);
    let page = answer(&sent).expect("a page");
    let html = String::from_utf8(page.body).expect("text");
    assert!(page.status == 200 && html.contains("Policy <b>"), "{html}");
    let elements = ["<script", "<img", "<iframe", "<style", "<link"].map(|tag| html.matches(tag).count());
    assert_eq!(elements, [1, 0, 0, 0, 2], "{html}");
}

fuzz_target!(|input: &[u8]| {
    let Some(([choices, piece], rest)) = input.split_first_chunk::<2>() else { return };
    let access = if choices & 128 == 0 { Access::Admin } else { Access::Reads };
    let said = request(STARTS[usize::from(*choices) % STARTS.len()], rest);
    let is_report = said.starts_with(b"POST /api/v1/balance ");
    RIG.with_borrow_mut(|rig| {
        rig.begin();
        let before = rig.state();
        let sent = rig.ask(said, usize::from(*piece) * 8 + 1, access);
        let answer = answer(&sent);
        let is_done = answer.as_ref().is_some_and(|answer| answer.status < 300);
        if let Some(Answer { status, body }) = &answer {
            assert!(*status != 500, "{}", String::from_utf8_lossy(body));
        }
        if !is_done || access == Access::Reads {
            assert_eq!(rig.state(), before, "a request that was refused changed something");
        }
        if is_done && is_report {
            check_page(rig);
        }
        rig.check_knobs();
        rig.end();
    });
});
