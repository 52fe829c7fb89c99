//! NBD clients of all kinds on a disk (rule 1: what was put comes back).

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tmem_tests::{
    Certificates, Daemon, FOREIGN_ADDRESS, Namespace, QemuGuest, build_checker, fail, succeed, tool,
};

/// Emulated code is slow, and a busy machine makes it slower.
const QEMU: Duration = Duration::from_secs(400);

fn daemon_with_disk(size: &str) -> Result<(Daemon, String)> {
    let daemon = Daemon::start("256M")?;
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    daemon.add_nbd_disk("vm1", size, &socket, &["--format", "none"])?;
    let uri = format!("nbd+unix:///vm1?socket={socket}");
    Ok((daemon, uri))
}

/// Pages of all kinds: random, alike, text, zeroes, and a hole at the end.
fn image(path: &Path, len: usize) -> Result<()> {
    let mut state = 9u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len / 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match bytes.len() / 4096 % 4 {
            0 => bytes.extend(state.to_be_bytes()),
            1 => bytes.extend(b"all alike"),
            2 => bytes.extend(format!("line {}\n", state >> 54).bytes()),
            _ => bytes.extend([0; 512]),
        }
    }
    bytes.resize(len, 0);
    fs::write(path, bytes).context("cannot write an image")
}

#[test]
fn nbdinfo_lists_and_describes_exports() -> Result<()> {
    let (daemon, uri) = daemon_with_disk("1G")?;
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    daemon.add_nbd_disk("vm2", "64M", &socket, &[])?;
    let list = succeed(tool("nbdinfo", &["--list", "--json", &format!("nbd+unix:///?socket={socket}")])?)?;
    let list: Value = serde_json::from_str(&list)?;
    let exports = list["exports"].as_array().context("exports")?;
    let names: Vec<_> =
        exports.iter().map(|export| export["export-name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["vm1", "vm2"]);
    let export = &exports[0];
    assert_eq!(export["export-size"], 1u64 << 30);
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    for can in ["can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"] {
        assert_eq!(export[can], true, "{can}");
    }
    assert_eq!((&export["is_read_only"], &export["block_size_minimum"]), (&false.into(), &1.into()));
    assert_eq!(
        (&export["block_size_preferred"], &export["block_size_maximum"]),
        (&4096.into(), &(32 << 20).into())
    );
    // A disk that is born as swap has its header, and a hole behind it.
    let map = succeed(tool("nbdinfo", &["--map", &uri.replace("vm1", "vm2")])?)?;
    let words: Vec<_> = map.split_whitespace().collect();
    assert_eq!(words, ["0", "4096", "0", "data", "4096", "67104768", "3", "hole,zero"]);
    daemon.stop().map(drop)
}

#[test]
fn r1_nbdcopy_brings_an_image_there_and_back() -> Result<()> {
    let (daemon, uri) = daemon_with_disk("96M")?;
    let (there, back) = (daemon.directory().join("there"), daemon.directory().join("back"));
    image(&there, 96 << 20)?;
    let (there, back) = (there.display().to_string(), back.display().to_string());
    succeed(tool("nbdcopy", &["--connections=4", "--requests=64", &there, &uri])?)?;
    succeed(tool("nbdcopy", &["--connections=4", &uri, &back])?)?;
    ensure!(fs::read(there)? == fs::read(back)?, "another image came back");
    // Half of it was zeroes, which take nothing.
    ensure!(daemon.client("vm1", "stored_pages")? <= 48 << 8, "{:#}", daemon.status()?);
    ensure!(daemon.client("vm1", "checksum_errors")? == 0);
    ensure!(!daemon.is_connected("vm1")?);
    daemon.stop().map(drop)
}

#[test]
fn r1_nbdsh_writes_parts_of_pages() -> Result<()> {
    let (daemon, uri) = daemon_with_disk("64M")?;
    let script = r#"
import random, nbd
random.seed(5)
size = h.get_size()
model = bytearray(size)
others = []
for structured in (False, True):
    other = nbd.NBD()
    other.set_request_structured_replies(structured)
    other.add_meta_context("base:allocation")
    other.connect_uri(uri)
    assert other.get_structured_replies_negotiated() == structured
    assert other.get_block_size(nbd.SIZE_MINIMUM) == 1
    others.append(other)
handles = [h] + others
for i in range(2000):
    handle = random.choice(handles)
    offset = random.randrange(200000)
    length = random.choice([1, 7, 512, 4096, 5000, 20000])
    kind = random.randrange(6)
    if kind < 3:
        data = random.randbytes(length)
        handle.pwrite(data, offset, random.choice([0, nbd.CMD_FLAG_FUA]))
        model[offset:offset + length] = data
    elif kind == 3:
        handle.zero(length, offset, random.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO]))
        model[offset:offset + length] = bytes(length)
    else:
        assert handle.pread(length, offset) == model[offset:offset + length], (i, offset, length)
first = 102400
h.trim(1 << 20, first)
model[first:first + (1 << 20)] = bytes(1 << 20)
h.flush()
assert h.pread(2 << 20, 0) == model[:2 << 20]
extents = []
others[1].block_status(size, 0, lambda name, offset, entries, error: extents.extend(entries))
lengths, flags = extents[::2], extents[1::2]
assert sum(lengths) == size and flags[-1] == nbd.STATE_HOLE | nbd.STATE_ZERO, extents
at = 0
for length, flag in zip(lengths, flags):
    if flag & nbd.STATE_ZERO:
        assert not any(model[at:at + length]), (at, length)
    at += length
for (offset, length) in ((size - 1, 2), (size, 1)):
    try:
        h.set_strict_mode(0)
        h.pread(length, offset)
        raise SystemExit("a read beyond the end succeeded")
    except nbd.Error as error:
        assert error.errnum == 22, error
print("@ok")
"#;
    let script = format!("uri = {uri:?}\n{script}");
    let printed = succeed(tool("nbdsh", &["--uri", &uri, "-c", &script])?)?;
    ensure!(printed.contains("@ok"), "{printed}");
    daemon.stop().map(drop)
}

#[test]
fn r1_qemu_img_and_qemu_io_agree_with_it() -> Result<()> {
    let (daemon, uri) = daemon_with_disk("64M")?;
    let path = daemon.directory().join("image");
    image(&path, 64 << 20)?;
    let path = path.display().to_string();
    succeed(tool("qemu-img", &["convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", &path, &uri])?)?;
    succeed(tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", &path, &uri])?)?;
    let io = [
        "write -P 7 1000 5000",
        "read -P 7 1000 5000",
        "write -z 1M 10M",
        "read -P 0 1M 10M",
        "write -z -u 12M 8M",
        "read -P 0 12M 8M",
        "discard 20M 1M",
        "read -P 0 20M 1M",
        "write -P 9 30M 20M",
        "read -P 9 30M 20M",
        "flush",
    ];
    let mut command = tool("qemu-io", &["-f", "raw"])?;
    command.args(io.iter().flat_map(|line| ["-c", line]));
    command.arg(&uri);
    let printed = succeed(command)?;
    ensure!(!printed.contains("failed"), "{printed}");
    // Zeroes that may be holes are, zeroes that may not are none, and nothing else changed.
    let map: Value =
        serde_json::from_str(&succeed(tool("qemu-img", &["map", "-f", "raw", "--output=json", &uri])?)?)?;
    let at = |offset: u64| -> Option<(bool, bool)> {
        let extents = map.as_array()?.iter();
        let covers = |e: &&Value| {
            let (start, len) = (e["start"].as_u64(), e["length"].as_u64());
            start.zip(len).is_some_and(|(start, len)| (start..start + len).contains(&offset))
        };
        let extent = extents.into_iter().find(covers)?;
        Some((extent["data"].as_bool()?, extent["zero"].as_bool()?))
    };
    assert_eq!(
        (at(12 << 20), at(20 << 20), at(30 << 20)),
        (Some((false, true)), Some((false, true)), Some((true, false)))
    );
    assert_eq!(at(2 << 20).map(|(_, zero)| zero), Some(true));
    ensure!(daemon.client("vm1", "checksum_errors")? == 0);
    daemon.stop().map(drop)
}

#[test]
fn r1_fio_verifies_what_it_wrote() -> Result<()> {
    let (daemon, uri) = daemon_with_disk("64M")?;
    let uri = format!("--uri={uri}");
    let job = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-64k",
        "--bs_unaligned",
        "--size=48M",
        "--iodepth=32",
        "--verify=crc32c",
        "--do_verify=1",
        "--verify_fatal=1",
        "--buffer_compress_percentage=60",
        "--verify_state_save=0",
    ];
    let printed = succeed(tool("fio", &job)?)?;
    ensure!(printed.contains("err= 0"), "{printed}");
    ensure!(daemon.client("vm1", "refused_puts")? == 0);
    daemon.stop().map(drop)
}

#[test]
fn r6_beyond_the_host_nothing_but_tls_with_certificates_is_served() -> Result<()> {
    let network = Namespace::new()?;
    let scratch = tempfile::tempdir()?;
    let certificates = Certificates::new(&scratch.path().join("ours"))?;
    let strangers = Certificates::new(&scratch.path().join("strangers"))?;
    let daemon = Daemon::start_with("64M", &certificates.serve_arguments(), Some(&network))?;
    let foreign =
        daemon.add_nbd_disk("vm1", "16M", &format!("{FOREIGN_ADDRESS}:10809"), &["--format", "none"])?;
    let local = daemon.add_nbd_disk("vm2", "16M", "127.0.0.1:0", &["--format", "none"])?;
    let client = |program: &str, arguments: &[&str]| -> Result<_> {
        let mut command = network.command(program)?;
        command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    };
    let uri = |who: &Certificates, place: &str, name: &str| {
        format!("nbds://{place}/{name}?tls-certificates={}", who.directory().display())
    };

    let mismatched =
        certificates.serve_arguments().into_iter().map(|word| word.replace("server-key", "client-key"));
    let error =
        Daemon::start_with("64M", &mismatched.collect::<Vec<_>>(), None).err().context("a wrong key")?;
    ensure!(format!("{error:#}").contains("give the key that belongs to it"), "{error:#}");

    // With a certificate, all is as ever; also long requests, deep queues and several connections.
    let ours = uri(&certificates, &foreign, "vm1");
    let described = succeed(client("nbdinfo", &[&ours])?)?;
    ensure!(described.contains("with TLS") && described.contains("16777216"), "{described}");
    let (there, back) = (scratch.path().join("there"), scratch.path().join("back"));
    image(&there, 16 << 20)?;
    let (there, back) = (there.display().to_string(), back.display().to_string());
    succeed(client("nbdcopy", &["--connections=2", &there, &ours])?)?;
    succeed(client("nbdcopy", &[&ours, &back])?)?;
    ensure!(fs::read(there)? == fs::read(back)?, "another image came back");

    // In the clear, with somebody else's certificate, or with none, there is nothing to be had, not even a list.
    let clear = fail(client("nbdinfo", &["--list", &format!("nbd://{foreign}/")])?)?;
    ensure!(!clear.contains("vm1"), "{clear}");
    fail(client("nbdinfo", &[&format!("nbd://{foreign}/vm1")])?)?;
    fail(client("nbdinfo", &[&uri(&strangers, &foreign, "vm1")])?)?;
    let nameless = scratch.path().join("nameless");
    fs::create_dir(&nameless)?;
    fs::copy(certificates.directory().join("ca-cert.pem"), nameless.join("ca-cert.pem"))?;
    fail(client("nbdinfo", &[&format!("nbds://{foreign}/vm1?tls-certificates={}", nameless.display())])?)?;

    // On loopback both ways work.
    succeed(client("nbdinfo", &[&format!("nbd://{local}/vm2")])?)?;
    succeed(client("nbdinfo", &[&uri(&certificates, &local, "vm2")])?)?;
    fail(client("nbdinfo", &[&uri(&strangers, &local, "vm2")])?)?;
    ensure!(!daemon.is_connected("vm1")?);
    daemon.stop().map(drop)
}

const COUNTERS: &str =
    "grep -E '^pswp' /proc/vmstat | while read name value; do echo \"@$name $value\"; done\n";

/// Every byte was compared, through a disk that was really used, and guest and daemon counted the same.
fn swapped(daemon: &Daemon, console: &[String]) -> Result<()> {
    let number = |prefix: &str| {
        let line = console.iter().find_map(|line| line.strip_prefix(prefix));
        line.and_then(|rest| rest.trim().parse::<u64>().ok()).with_context(|| console.join("\n"))
    };
    ensure!(console.iter().any(|line| line.starts_with("VERIFIED ")), "{}", console.join("\n"));
    let (out, back) = (number("@pswpout")?, number("@pswpin")?);
    ensure!(out > 1000 && back > 1000, "hardly swapped: {out} out, {back} in");
    ensure!(daemon.client("swap", "puts")? >= out && daemon.client("swap", "gets")? >= back);
    for counter in ["refused_puts", "checksum_errors"] {
        ensure!(daemon.client("swap", counter)? == 0, "{counter}: {:#}", daemon.status()?);
    }
    Ok(())
}

#[test]
fn r1_a_guest_swaps_over_the_kernels_own_client() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    let checker = build_checker(daemon.directory())?;
    let place = daemon.add_nbd_disk("swap", "512M", "127.0.0.1:0", &[])?;
    let port = place.strip_prefix("127.0.0.1:").context("a port")?;
    let script = format!(
        "nbd-client 10.0.2.2 {port} /dev/nbd0 -N swap -swap -C 2 -b 4096\n\
         swapon -d /dev/nbd0\n/check_pages 160 31 1\n{COUNTERS}"
    );
    let console = QemuGuest::boot_with_nbd_client(&checker, &script)?.finish(QEMU)?;
    swapped(&daemon, &console)?;
    daemon.stop().map(drop)
}

/// With nothing but what `tmem guest-config` prints: the guest's memory is not shared, and its kernel sees a virtio disk.
#[test]
fn r1_a_guest_swaps_over_qemus_own_client() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    let checker = build_checker(daemon.directory())?;
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    daemon.add_nbd_disk("swap", "512M", &socket, &[])?;
    let script = format!("swapon -d /dev/vda\n/check_pages 120 32 1\n{COUNTERS}");
    let console = QemuGuest::boot(&daemon, "swap", &checker, &script)?.finish(QEMU)?;
    swapped(&daemon, &console)?;
    daemon.stop().map(drop)
}
