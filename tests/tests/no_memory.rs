//! The host has nothing left to give (rule 5): the daemon runs in a guest, in a memory cgroup that is at its limit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tmem_tests::{QemuGuest, build_guest_program};

/// Emulated code is slow, and a busy machine makes it slower.
const QEMU: Duration = Duration::from_secs(400);

/// Starts the daemon in the cgroup, with a disk over NBD that the guest's kernel has as `/dev/nbd0`.
const START: &str = "
echo 1 > /proc/sys/kernel/printk
sh -c 'echo $$ > /sys/fs/cgroup/tmem/cgroup.procs; exec tmem --runtime-dir /run/tmem serve --http off --pool-size 200M' &
until tmem --runtime-dir /run/tmem status > /dev/null 2>&1; do sleep 0.2; done
tmem --runtime-dir /run/tmem disk add d --size 128M --nbd /run/nbd.sock --format none
nbd-client -unix /run/nbd.sock /dev/nbd0 -N d -b 4096
cd /sys/fs/cgroup/tmem
put() { /check_pages /dev/nbd0 /tmp/book write $*; }
check() { /check_pages /dev/nbd0 /tmp/book check 20000; }
";

/// What some marked line of the console says, the n-th of them.
fn numbers(console: &[String], mark: &str, n: usize) -> Result<Vec<u64>> {
    let line = console.iter().filter_map(|line| line.strip_prefix(mark)).nth(n);
    let line = line.with_context(|| format!("no {mark} number {n}:\n{}", console.join("\n")))?;
    line.split_whitespace().map(|word| word.parse().context("a number")).collect()
}

#[test]
fn r5_puts_go_on_in_a_cgroup_that_is_at_its_limit() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = build_guest_program("put_pages", directory.path())?;
    let script = format!(
        "{START}
put 0 1200 1
sleep 2
# From here on there is a mebibyte for the daemon itself, and nothing for the pool.
echo $(($(cat memory.current) + 1048576)) > memory.max
put 1200 1000 1
put 0 1200 2
check
echo \"@status $(tmem --runtime-dir /run/tmem status --json | tr -d ' \\n')\"
# And now there is memory again.
echo max > memory.max
sleep 1
put 1200 1000 4
put 100 1000 5
check
grep -E '^(oom|oom_kill|max) ' memory.events | sed 's/^/@/'
"
    );
    let console = QemuGuest::boot_with_tmem_and_nbd(&program, &script)?.finish(QEMU)?;
    let all = console.join("\n");
    println!("{all}");
    let written = |n| numbers(&console, "@written ", n);
    ensure!(written(0)?[..2] == [1200, 0], "before: {all}");
    let [accepted, refused, _] = written(1)?[..] else { anyhow::bail!("{all}") };
    ensure!(refused > 500, "the cgroup still had memory for {accepted} new pages:\n{all}");
    // What is there can be replaced: that needs nothing of the host.
    ensure!(written(2)?[..2] == [1200, 0], "overwrites were refused:\n{all}");
    ensure!(numbers(&console, "@checked ", 0)? == [1200 + accepted, refused], "{all}");
    ensure!(written(3)?[..2] == [1000, 0] && written(4)?[..2] == [1000, 0], "afterwards: {all}");
    ensure!(numbers(&console, "@checked ", 1)? == [2200, 0], "{all}");
    ensure!(numbers(&console, "@oom_kill ", 0)? == [0] && numbers(&console, "@oom ", 0)? == [0], "{all}");
    Ok(())
}
