//! What the memory cgroups that this process is in leave it: systemd units, containers.
//!
//! A process that asks for more than its cgroup's limit does not get an error: something in the cgroup is killed. So the limit has to be
//! known before.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The tightest of the cgroups that this process is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryCgroup {
    /// The lowest limit, in bytes.
    pub(crate) limit_bytes: u64,
    /// What can still be had before any limit is reached, in bytes: what is free, and page cache that was not used twice.
    pub(crate) available_bytes: u64,
}

/// How a version of the interface names its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    limits: &'static [&'static str],
    usage: &'static str,
    reclaimable: &'static str,
}

const V1: Version = Version {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
/// Above `memory.high` whoever asks is put to sleep, so it counts as a limit.
const V2: Version =
    Version { limits: &["memory.max", "memory.high"], usage: "memory.current", reclaimable: "inactive_file" };

/// Version 1 shows "no limit" as a number just below this.
const NO_LIMIT_BYTES: u64 = 1 << 62;

/// Where a hierarchy is mounted, and which of its cgroups is there.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    version: Version,
    root: String,
    place: PathBuf,
}

impl MemoryCgroup {
    /// What the kernel says now. `None`: there is no limit, or it cannot be found out.
    pub(crate) fn read() -> Option<Self> {
        static MOUNT: OnceLock<Option<Mount>> = OnceLock::new();
        let find = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
            mounts.lines().filter_map(Mount::parse).min_by_key(|mount| mount.version == V2)
        };
        let mount = MOUNT.get_or_init(find).as_ref()?;
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = cgroups.lines().find_map(|line| mount.path_in(line))?;
        mount.tightest(path)
    }
}

impl Mount {
    /// From a line of `/proc/self/mountinfo`, if it is of a hierarchy that can limit memory.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, place) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let version = match (file_system.next()?, file_system.nth(1)?) {
            ("cgroup", options) if options.split(',').any(|option| option == "memory") => V1,
            ("cgroup2", _) => V2,
            _ => return None,
        };
        Some(Self { version, root: root.to_owned(), place: place.into() })
    }

    /// Which cgroup below the mount a line of `/proc/self/cgroup` names, if it is one of this hierarchy.
    fn path_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let is_ours = if self.version == V2 {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|controller| controller == "memory")
        };
        let path = is_ours.then_some(path)?;
        // A container often sees its own cgroup as the root.
        Some(path.strip_prefix(self.root.as_str()).unwrap_or(path).trim_start_matches('/'))
    }

    /// The tightest of a cgroup and those above it, as far up as they can be seen.
    fn tightest(&self, path: &str) -> Option<MemoryCgroup> {
        let mut tightest: Option<MemoryCgroup> = None;
        for above in Path::new(path).ancestors() {
            let Some(cgroup) = self.version.look_at(&self.place.join(above)) else { continue };
            tightest = Some(tightest.map_or(cgroup, |other| MemoryCgroup {
                limit_bytes: other.limit_bytes.min(cgroup.limit_bytes),
                available_bytes: other.available_bytes.min(cgroup.available_bytes),
            }));
        }
        tightest
    }
}

impl Version {
    /// `None`: the cgroup has no limit.
    fn look_at(self, cgroup: &Path) -> Option<MemoryCgroup> {
        let number = |name: &str| fs::read_to_string(cgroup.join(name)).ok()?.trim().parse::<u64>().ok();
        let limits = self.limits.iter().filter_map(|name| number(name));
        let limit_bytes = limits.min().filter(|limit| *limit < NO_LIMIT_BYTES)?;
        let used_bytes = number(self.usage)?;
        let stat = fs::read_to_string(cgroup.join("memory.stat")).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(self.reclaimable)?.trim().parse().ok());
        let available_bytes = (limit_bytes + reclaimable.unwrap_or(0)).saturating_sub(used_bytes);
        Some(MemoryCgroup { limit_bytes, available_bytes: available_bytes.min(limit_bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str, place: &Path) -> Mount {
        Mount { place: place.into(), ..Mount::parse(line).expect("a hierarchy") }
    }

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const LEGACY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";

    #[test]
    fn only_hierarchies_of_memory_count() {
        assert_eq!(Mount::parse(UNIFIED).map(|mount| mount.version), Some(V2));
        assert_eq!(Mount::parse(LEGACY).map(|mount| mount.version), Some(V1));
        assert_eq!(Mount::parse(&LEGACY.replace("rw,memory", "rw,cpu")), None);
        assert_eq!(Mount::parse("23 1 0:21 / /sys rw - sysfs sysfs rw"), None);
    }

    #[test]
    fn a_process_is_found_in_its_hierarchy() {
        let (unified, legacy) = (mount(UNIFIED, Path::new("/")), mount(LEGACY, Path::new("/")));
        assert_eq!(unified.path_in("0::/system.slice/tmem.service"), Some("system.slice/tmem.service"));
        assert_eq!(unified.path_in("4:memory:/a"), None);
        assert_eq!(legacy.path_in("4:memory:/a/b"), Some("a/b"));
        assert_eq!(legacy.path_in("0::/a"), None);
        let container = Mount { root: "/docker/7".to_owned(), ..unified };
        assert_eq!(container.path_in("0::/docker/7/x"), Some("x"));
        assert_eq!(container.path_in("0::/"), Some(""));
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, text).expect("a file");
        };
        let unified = mount(UNIFIED, directory.path());
        write("a/b/memory.max", "max\n");
        write("a/b/memory.high", "max\n");
        assert_eq!(unified.tightest("a/b"), None);
        write("a/memory.max", "1000000\n");
        write("a/memory.current", "400000\n");
        write("a/memory.stat", "anon 300000\ninactive_file 50000\nactive_file 9\n");
        let cgroup = |limit_bytes, available_bytes| Some(MemoryCgroup { limit_bytes, available_bytes });
        assert_eq!(unified.tightest("a/b"), cgroup(1_000_000, 650_000));
        write("a/b/memory.high", "500000\n");
        write("a/b/memory.current", "700000\n");
        assert_eq!(unified.tightest("a/b"), cgroup(500_000, 0));
        let legacy = mount(LEGACY, directory.path());
        write("a/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(legacy.tightest("a"), None);
    }
}
