//! A disk of the daemon's own host, over ublk.

use anyhow::{Result, anyhow};
use tmem_control::{ByteSize, DiskFormat, DiskInfo};

use super::Vmm;

/// One disk that is a block device of this host.
pub(crate) struct HostDisk<'a> {
    name: &'a str,
    device: String,
    size: ByteSize,
    format: DiskFormat,
}

impl<'a> HostDisk<'a> {
    pub(crate) fn new(disk: &'a DiskInfo) -> Result<Self> {
        let device = disk.device.as_ref().ok_or_else(|| {
            anyhow!(
                "disk {}: the daemon does not say where it is; run tmem of the daemon's version",
                disk.name
            )
        })?;
        Ok(Self {
            name: disk.name.as_str(),
            device: device.display().to_string(),
            size: ByteSize::from_bytes(disk.size_bytes),
            format: disk.format,
        })
    }

    /// What to do on the host, for a person.
    pub(crate) fn instructions(&self, vmm: Vmm) -> Result<String> {
        self.check(vmm)?;
        let Self { name, device, size, .. } = self;
        let what = match self.format {
            DiskFormat::Swap => format!(
                "# Make it this host's swap, now (discard gives freed pages back to the pool):\n\
                 swapon --discard --priority 100 {device}\n\n\
                 # Or whenever the daemon has made it, with this line in /etc/fstab (nofail: the host boots without it):\n\
                 LABEL=tmem none swap sw,pri=100,discard,nofail 0 0\n\n\
                 # Before the disk is removed (a daemon that ends does this by itself):\n\
                 swapoff {device}\n"
            ),
            DiskFormat::None => format!(
                "# It was added with --format none and holds zeroes. Make it a swap area or give it a file system, whose contents are\n\
                 # gone when the daemon ends:\n\
                 mkswap {device} && swapon --discard --priority 100 {device}\n"
            ),
        };
        Ok(format!("# Disk {name}, {size} ({device} on this host).\n\n{what}"))
    }

    /// There are none: it takes no program to have the disk.
    pub(crate) fn arguments(&self, vmm: Vmm) -> Result<Option<Vec<String>>> {
        self.check(vmm).map(|()| None)
    }

    fn check(&self, vmm: Vmm) -> Result<()> {
        match vmm {
            Vmm::Host => Ok(()),
            _ => Err(anyhow!(
                "disk {} is {} on this host (--vmm host), not a guest's; for a guest add one with --vhost-user or --nbd",
                self.name,
                self.device
            )),
        }
    }
}

/// The answer for disks that are reached in another way.
pub(crate) fn not_ublk(disk: &str) -> anyhow::Error {
    anyhow!("disk {disk} is for guests, and not a device of this host; add one with --ublk")
}

#[cfg(test)]
mod tests {
    use tmem_control::{DiskSpec, Frontend};

    use super::*;

    fn disk(format: &str) -> DiskInfo {
        let spec: DiskSpec = serde_json::from_value(serde_json::json!({
            "name": "swap0", "size_bytes": 4u64 << 30, "ublk": true, "format": format
        }))
        .expect("a disk");
        DiskInfo::new(&spec, &Frontend::Ublk { queues: Some(2), device: Some("/dev/ublkb3".into()) })
    }

    fn instructions(format: &str, vmm: Vmm) -> Result<String> {
        HostDisk::new(&disk(format))?.instructions(vmm)
    }

    #[test]
    fn swap_is_turned_on_by_its_device() {
        let text = instructions("swap", Vmm::Host).expect("text");
        assert!(text.contains("\nswapon --discard --priority 100 /dev/ublkb3\n"), "{text}");
        assert!(text.contains("\nswapoff /dev/ublkb3\n") && !text.contains("mkswap"), "{text}");
        let text = instructions("none", Vmm::Host).expect("text");
        assert!(text.contains("mkswap /dev/ublkb3"), "{text}");
        let disk = disk("swap");
        assert!(HostDisk::new(&disk).and_then(|disk| disk.arguments(Vmm::Host)).expect("fine").is_none());
    }

    #[test]
    fn it_is_no_guests() {
        for vmm in [Vmm::Qemu, Vmm::NbdClient, Vmm::Uml] {
            let error = instructions("swap", vmm).expect_err("no guest").to_string();
            assert!(error.contains("/dev/ublkb3") && error.contains("--vmm host"), "{error}");
        }
        assert!(not_ublk("vm1").to_string().contains("--ublk"));
    }
}
