//! A disk over NBD: QEMU's own client, libvirt's words for it, or the kernel's client.
//!
//! The kernel's client is not told to stay (`-persist`): a daemon that was started again has none of the pages.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use tmem_control::{ByteSize, DiskFormat, DiskInfo};

use super::{Vmm, host, inside, libvirt::xml_escaped, shell_lines, shell_quoted, socket_of};

/// For so long a client has its requests wait for a daemon that has closed the connection, until it gives them up: many times what the next worker
/// needs.
const RECONNECT_SECONDS: u32 = 60;

/// Files that a client needs where there is TLS, as QEMU wants them named.
const TLS_NOTE: &str = "# TLS: /etc/pki/qemu holds ca-cert.pem, client-cert.pem and client-key.pem; the client's certificate must be from an\n\
                        # authority in --nbd-tls-client-ca of `tmem serve`.\n";
/// Connections of the kernel's client, each with a thread on either side. A swapping CPU keeps one busy.
const KERNEL_CONNECTIONS: u32 = 2;

/// One guest with one disk over NBD.
pub(crate) struct NbdGuest<'a> {
    name: &'a str,
    place: Place<'a>,
    size: ByteSize,
    format: DiskFormat,
}

enum Place<'a> {
    Socket(&'a str),
    Tcp(SocketAddr),
}

impl<'a> NbdGuest<'a> {
    pub(crate) fn new(disk: &'a DiskInfo) -> Result<Self> {
        let place = match (socket_of(disk)?, disk.address) {
            (Some(socket), _) => Place::Socket(socket),
            (None, Some(address)) => Place::Tcp(address),
            (None, None) => bail!(
                "disk {}: the daemon does not say where it is; run tmem of the daemon's version",
                disk.name
            ),
        };
        let size = ByteSize::from_bytes(disk.size_bytes);
        Ok(Self { name: disk.name.as_str(), place, size, format: disk.format })
    }

    /// The monitor's arguments, or none where it takes something else.
    pub(crate) fn arguments(&self, vmm: Vmm) -> Result<Option<Vec<String>>> {
        match vmm {
            Vmm::Qemu => Ok(Some(self.qemu())),
            Vmm::Libvirt | Vmm::NbdClient => Ok(None),
            Vmm::Host => Err(host::not_ublk(self.name)),
            _ => Err(self.without_client()),
        }
    }

    /// What to do on the host and in the guest, for a person.
    pub(crate) fn instructions(&self, vmm: Vmm) -> Result<String> {
        let tls = if self.needs_tls() { TLS_NOTE } else { "" };
        let (host, modules) = match vmm {
            Vmm::Qemu => (
                format!("# Add to the QEMU command line.\n{tls}{}\n", shell_lines(&self.qemu())),
                String::new(),
            ),
            Vmm::Libvirt => (self.libvirt(), String::new()),
            Vmm::NbdClient => (String::new(), self.kernel()),
            Vmm::Host => return Err(host::not_ublk(self.name)),
            _ => return Err(self.without_client()),
        };
        let place = match &self.place {
            Place::Socket(socket) => (*socket).to_owned(),
            Place::Tcp(address) => address.to_string(),
        };
        Ok(format!(
            "# Disk {}, {} (NBD on {place}).\n\n{host}{}",
            self.name,
            self.size,
            inside(self.format, self.size, &modules)
        ))
    }

    fn needs_tls(&self) -> bool {
        matches!(self.place, Place::Tcp(address) if !address.ip().is_loopback())
    }

    fn without_client(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "disk {}: this monitor has no NBD client; use the kernel's inside the guest (--vmm nbd-client), or add the disk \
             again with --vhost-user",
            self.name
        )
    }

    fn qemu(&self) -> Vec<String> {
        let name = self.name;
        let server = match &self.place {
            // In QEMU's option lists a comma ends a value, and two stand for one.
            Place::Socket(socket) => format!("server.type=unix,server.path={}", socket.replace(',', ",,")),
            Place::Tcp(address) => {
                format!("server.type=inet,server.host={},server.port={}", reachable(*address), address.port())
            }
        };
        let mut arguments = Vec::new();
        let mut tls = "";
        if self.needs_tls() {
            let credentials = "tls-creds-x509,id=tmem-tls,endpoint=client,dir=/etc/pki/qemu";
            arguments.extend(["-object".to_owned(), credentials.to_owned()]);
            tls = ",tls-creds=tmem-tls";
        }
        arguments.extend([
            "-blockdev".to_owned(),
            format!(
                "driver=nbd,node-name=tmem-{name},export={name},discard=unmap,reconnect-delay={RECONNECT_SECONDS},{server}{tls}"
            ),
            "-device".to_owned(),
            format!("virtio-blk-pci,drive=tmem-{name}"),
        ]);
        arguments
    }

    fn libvirt(&self) -> String {
        let (tls, host) = match &self.place {
            Place::Socket(socket) => ("", format!("transport='unix' socket='{}'", xml_escaped(socket))),
            Place::Tcp(address) => (
                if self.needs_tls() { " tls='yes'" } else { "" },
                format!("name='{}' port='{}'", reachable(*address), address.port()),
            ),
        };
        let mut text = format!(
            "# With `virsh edit`, into <devices>; choose a target that is free.\n\
             <disk type='network' device='disk' snapshot='no'>\n\
            \x20 <driver name='qemu' type='raw' discard='unmap'/>\n\
            \x20 <source protocol='nbd' name='{}'{tls}>\n\
            \x20   <host {host}/>\n\
            \x20   <reconnect delay='{RECONNECT_SECONDS}'/>\n\
            \x20 </source>\n\
            \x20 <target dev='vdz' bus='virtio'/>\n\
             </disk>\n\n",
            self.name
        );
        if let Place::Socket(socket) = &self.place {
            text.push_str(&format!(
                "# libvirt runs QEMU as a user of its own (libvirt-qemu on Debian), which must be let in to the socket:\n\
                 setfacl -m u:libvirt-qemu:rw {}\n\n",
                shell_quoted(socket)
            ));
        }
        text
    }

    /// `-swap` keeps the client out of the way of the memory that it is to free.
    fn kernel(&self) -> String {
        let server = match &self.place {
            Place::Socket(socket) => format!("-unix {}", shell_quoted(socket)),
            Place::Tcp(address) => format!("{} {}", reachable(*address), address.port()),
        };
        let tls = if self.needs_tls() {
            " -certfile client-cert.pem -keyfile client-key.pem -cacertfile ca-cert.pem"
        } else {
            ""
        };
        format!(
            "modprobe nbd\nnbd-client {server} /dev/nbd0 -N {} -swap -C {KERNEL_CONNECTIONS} -b 4096{tls}\n",
            self.name
        )
    }
}

/// A host to connect to: where the daemon listens on all of its addresses, the reader knows which one to use.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { "HOST".to_owned() } else { address.ip().to_string() }
}

#[cfg(test)]
mod tests {
    use tmem_control::{DedupChoice, DiskSpec, Frontend};

    use super::*;

    fn disk(address: &str) -> DiskInfo {
        let frontend = Frontend::Nbd(address.parse().expect("address"));
        let spec = DiskSpec {
            name: "vm-1".parse().expect("name"),
            size_bytes: 4 << 30,
            frontend: frontend.clone(),
            cap_bytes: None,
            weight: Default::default(),
            dedup: DedupChoice::Alone,
            format: DiskFormat::Swap,
        };
        DiskInfo::new(&spec, &frontend)
    }

    fn instructions(address: &str, vmm: Vmm) -> Result<String> {
        NbdGuest::new(&disk(address))?.instructions(vmm)
    }

    #[test]
    fn qemu_is_its_own_client() {
        let disk = disk("/run/a,b.sock");
        let arguments = NbdGuest::new(&disk).and_then(|guest| guest.arguments(Vmm::Qemu)).expect("arguments");
        assert_eq!(
            arguments.expect("some"),
            [
                "-blockdev",
                "driver=nbd,node-name=tmem-vm-1,export=vm-1,discard=unmap,reconnect-delay=60,server.type=unix,server.path=/run/a,,b.sock",
                "-device",
                "virtio-blk-pci,drive=tmem-vm-1",
            ]
        );
    }

    #[test]
    fn beyond_the_host_there_is_tls() {
        for (vmm, mentions) in
            [(Vmm::Qemu, "tls-creds=tmem-tls"), (Vmm::Libvirt, "tls='yes'"), (Vmm::NbdClient, "-certfile")]
        {
            for (address, tls) in
                [("192.0.2.1:10809", true), ("127.0.0.1:10809", false), ("/run/nbd.sock", false)]
            {
                let text = instructions(address, vmm).expect("text");
                assert_eq!(text.contains(mentions), tls, "{vmm:?} {address}: {text}");
                assert!(text.contains("LABEL=tmem none swap") && !text.contains("persist"), "{text}");
            }
        }
        assert!(
            instructions("0.0.0.0:10809", Vmm::NbdClient).expect("text").contains("nbd-client HOST 10809")
        );
    }

    #[test]
    fn monitors_without_a_client_say_what_to_do() {
        for vmm in [Vmm::CloudHypervisor, Vmm::Firecracker, Vmm::Uml] {
            let error = instructions("/run/nbd.sock", vmm).expect_err("no client").to_string();
            assert!(error.contains("--vmm nbd-client") && error.contains("--vhost-user"), "{error}");
        }
    }
}
