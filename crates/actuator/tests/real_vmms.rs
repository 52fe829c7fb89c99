//! The real APIs of Cloud Hypervisor and Firecracker, with guests that are made and never run: `cargo nextest run -p tmem-actuator --run-ignored only`
//! where both programs are in the `PATH` and `/dev/kvm` works.

#![allow(clippy::expect_used)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tmem_actuator::{Address, Guest};

const MIB: u64 = 1 << 20;

/// A program that is killed with the test.
struct Vmm(Child);

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it, and waits for its socket.
fn start(program: &str, arguments: &[&str], socket: &Path) -> Vmm {
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").expect("/dev/kvm");
    let mut command = Command::new(program);
    command.args(arguments).arg(socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let vmm = Vmm(command.spawn().expect("the program, in the PATH"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < deadline, "{program} has no socket");
        thread::sleep(Duration::from_millis(50));
    }
    vmm
}

/// Has it do something.
fn put(socket: &Path, path: &str, body: &Value) {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let body = body.to_string();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("a request");
    let mut answer = [0; 4096];
    let got = stream.read(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..got]);
    assert!(answer.starts_with("HTTP/1.1 20"), "{path}: {answer}");
}

#[tokio::test]
#[ignore = "wants cloud-hypervisor and a KVM that works"]
async fn cloud_hypervisor_understands_us() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("api");
    let _vmm = start("cloud-hypervisor", &["--api-socket"], &socket);
    // Never started, so it may be any file.
    let kernel = directory.path().join("kernel");
    fs::write(&kernel, "").expect("a file");
    let config =
        json!({"payload": {"kernel": kernel}, "memory": {"size": 512 * MIB}, "balloon": {"size": 0}});
    put(&socket, "/api/v1/vm.create", &config);
    let mut guest = Guest::new(Address::CloudHypervisor(socket));
    let seen = guest.look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.max_bytes), (512 * MIB, 512 * MIB));
    guest.set(300 * MIB).await.expect("told");
}

#[tokio::test]
#[ignore = "wants firecracker and a KVM that works"]
async fn firecracker_understands_us() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("api");
    let _vmm = start("firecracker", &["--api-sock"], &socket);
    put(&socket, "/machine-config", &json!({"vcpu_count": 1, "mem_size_mib": 512}));
    put(
        &socket,
        "/balloon",
        &json!({"amount_mib": 100, "deflate_on_oom": true, "stats_polling_interval_s": 0}),
    );
    let seen = Guest::new(Address::Firecracker(socket)).look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.max_bytes), (412 * MIB, 512 * MIB));
}
