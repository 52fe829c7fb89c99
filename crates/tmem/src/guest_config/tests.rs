use tmem_control::{DedupChoice, TRANSPORT_VHOST_USER_BLK};

use super::*;

fn disk(socket: &str, format: DiskFormat) -> DiskInfo {
    DiskInfo {
        name: "vm-1".parse().expect("name"),
        size_bytes: 4 << 30,
        cap_bytes: None,
        weight: 100,
        dedup: DedupChoice::Alone,
        format,
        transport: TRANSPORT_VHOST_USER_BLK.to_owned(),
        socket: Some(socket.into()),
        address: None,
        device: None,
        queues: Some(2),
        connected: false,
    }
}

fn instructions(socket: &str, format: DiskFormat, vmm: Vmm) -> Result<String> {
    let disk = disk(socket, format);
    Guest::new(&disk, ByteSize::from_bytes(512 << 20))?.instructions(vmm)
}

fn arguments(socket: &str, vmm: Vmm) -> Option<Vec<String>> {
    let disk = disk(socket, DiskFormat::Swap);
    Guest::new(&disk, ByteSize::from_bytes(512 << 20))
        .and_then(|guest| guest.arguments(vmm))
        .expect("arguments")
}

const ALL: [Vmm; 5] = [Vmm::Qemu, Vmm::Libvirt, Vmm::CloudHypervisor, Vmm::Firecracker, Vmm::Uml];

#[test]
fn qemu_gets_shared_memory_of_the_guests_size() {
    assert_eq!(
        arguments("/run/a,b.sock", Vmm::Qemu).expect("arguments"),
        [
            "-m",
            "512M",
            "-object",
            "memory-backend-memfd,id=mem,size=512M,share=on",
            "-numa",
            "node,memdev=mem",
            "-chardev",
            "socket,id=tmem-vm-1,path=/run/a,,b.sock",
            "-device",
            "vhost-user-blk-pci,chardev=tmem-vm-1,num-queues=2",
        ]
    );
}

#[test]
fn uml_and_cloud_hypervisor_get_their_flags() {
    assert_eq!(arguments("/s", Vmm::Uml).expect("arguments"), ["mem=512M", "virtio_uml.device=/s:2"]);
    assert_eq!(
        arguments("/s", Vmm::CloudHypervisor).expect("arguments"),
        ["--memory", "size=512M,shared=on", "--disk", "vhost_user=on,socket=/s,num_queues=2"]
    );
    assert_eq!(arguments("/s", Vmm::Libvirt), None);
    assert_eq!(arguments("/s", Vmm::Firecracker), None);
}

#[test]
fn every_monitor_is_told_the_socket_and_every_guest_its_fstab_line() {
    for vmm in ALL {
        let text = instructions("/run/tmem/vm-1.sock", DiskFormat::Swap, vmm).expect("text");
        assert!(text.contains("/run/tmem/vm-1.sock"), "{vmm:?}: {text}");
        assert!(text.contains("\nLABEL=tmem none swap sw,pri=100,discard,nofail 0 0\n"), "{vmm:?}: {text}");
        assert!(!text.contains("reconnect"), "{vmm:?}: {text}");
        let text = instructions("/run/tmem/vm-1.sock", DiskFormat::None, vmm).expect("text");
        assert!(!text.contains("swapon") && text.contains("file system"), "{vmm:?}: {text}");
    }
}

#[test]
fn odd_paths_are_quoted_for_what_they_are_pasted_into() {
    let qemu = instructions("/tmp/it's here.sock", DiskFormat::Swap, Vmm::Qemu).expect("text");
    assert!(qemu.contains(r"'socket,id=tmem-vm-1,path=/tmp/it'\''s here.sock'"), "{qemu}");
    let libvirt = instructions("/tmp/a&'b.sock", DiskFormat::Swap, Vmm::Libvirt).expect("text");
    assert!(libvirt.contains("path='/tmp/a&amp;&apos;b.sock'"), "{libvirt}");
    let firecracker = instructions("/tmp/a\"b.sock", DiskFormat::Swap, Vmm::Firecracker).expect("text");
    assert!(firecracker.contains(r#""socket": "/tmp/a\"b.sock""#), "{firecracker}");
    for (socket, vmm) in [("/tmp/a b", Vmm::Uml), ("/tmp/a:b", Vmm::Uml), ("/tmp/a,b", Vmm::CloudHypervisor)]
    {
        let error = instructions(socket, DiskFormat::Swap, vmm).expect_err(socket).to_string();
        assert!(error.contains(socket) && error.contains("add the disk again"), "{error}");
    }
}
