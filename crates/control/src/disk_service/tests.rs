use super::*;

fn vhost_user(socket: &str) -> Frontend {
    Frontend::VhostUser { socket: socket.into(), queues: 1 }
}

fn nbd(address: &str) -> Frontend {
    Frontend::Nbd(address.parse().expect("address"))
}

fn ublk(queues: Option<u16>) -> Frontend {
    Frontend::Ublk { queues, device: None }
}

fn spec() -> DiskSpec {
    DiskSpec {
        name: "vm1".parse().expect("name"),
        size_bytes: 4 << 30,
        frontend: vhost_user("/run/tmem/vm1.sock"),
        cap_bytes: None,
        weight: Weight::default(),
        dedup: DedupChoice::Alone,
        format: DiskFormat::Swap,
    }
}

#[test]
fn sense_passes() {
    assert_eq!(spec().check(), Ok(()));
}

#[test]
fn each_nonsense_names_the_disk_and_the_way_out() {
    let long = format!("/{}", "x".repeat(107));
    for (broken, mentions) in [
        (DiskSpec { size_bytes: 0, ..spec() }, "at least 1M"),
        (DiskSpec { size_bytes: (1 << 20) + 4097, ..spec() }, "1028K would be"),
        (DiskSpec { cap_bytes: Some(0), ..spec() }, "no cap at all"),
        (DiskSpec { cap_bytes: Some(2 << 40), ..spec() }, "1024 GiB"),
        (
            DiskSpec { frontend: Frontend::VhostUser { socket: "/s".into(), queues: 0 }, ..spec() },
            "1 or more",
        ),
        (DiskSpec { frontend: vhost_user("vm1.sock"), ..spec() }, "/run/tmem/vm1.sock"),
        (DiskSpec { frontend: vhost_user(&long), ..spec() }, "shorter"),
        (DiskSpec { frontend: vhost_user("/tmp/a\nb"), ..spec() }, "plain one"),
        (DiskSpec { frontend: nbd("vm1.sock"), ..spec() }, "/run/tmem/vm1.sock"),
        (DiskSpec { frontend: ublk(Some(0)), ..spec() }, "1 or more"),
        (
            DiskSpec { frontend: ublk(None), dedup: "tenant".parse().expect("domain"), ..spec() },
            "dedup tenant",
        ),
    ] {
        let error = broken.check().expect_err(mentions).to_string();
        assert!(
            error.starts_with("disk vm1: ") && error.contains(mentions) && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn a_body_with_unknown_fields_is_refused() {
    let body = r#"{"name":"vm1","size_bytes":1048576,"vhost_user":"/s","priority":3}"#;
    assert!(serde_json::from_str::<DiskSpec>(body).unwrap_err().to_string().contains("priority"));
    let body = r#"{"name":"vm1","size_bytes":1048576,"vhost_user":"/s"}"#;
    let spec: DiskSpec = serde_json::from_str(body).expect("minimal");
    assert_eq!((spec.cap_bytes, spec.weight.get(), spec.format), (None, 100, DiskFormat::Swap));
    assert_eq!(spec.frontend, Frontend::VhostUser { socket: "/s".into(), queues: 4 });
}

#[test]
fn a_weight_is_checked_where_it_is_read() {
    let read = |weight: &str| {
        let body = format!(r#"{{"name":"vm1","size_bytes":1048576,"vhost_user":"/s","weight":{weight}}}"#);
        serde_json::from_str::<DiskSpec>(&body).map_err(|error| error.to_string())
    };
    let spec = read("7").expect("a weight");
    assert_eq!(spec.weight.get(), 7);
    assert_eq!(
        serde_json::from_str::<DiskSpec>(&serde_json::to_string(&spec).expect("json")).expect("spec"),
        spec
    );
    for (wrong, mentions) in [("0", "disk vm1: `0`"), ("10001", "1 to 10000"), ("-1", "-1"), ("\"7\"", "u32")]
    {
        let error = read(wrong).expect_err(wrong);
        assert!(error.contains(mentions), "{error}");
    }
}

#[test]
fn a_body_names_one_frontend() {
    let read = |more: &str| {
        serde_json::from_str::<DiskSpec>(&format!(r#"{{"name":"vm1","size_bytes":1048576{more}}}"#))
    };
    let spec = read(r#","nbd":"127.0.0.1:10809""#).expect("nbd");
    assert_eq!(spec.frontend, nbd("127.0.0.1:10809"));
    assert_eq!(read(r#","vhost_user":null,"nbd":"/s""#).expect("nbd").frontend, nbd("/s"));
    for (more, mentions) in [
        ("", "neither"),
        (r#","nbd":"/s","vhost_user":"/t""#, "exclude each other"),
        (r#","nbd":"/s","queues":2"#, "queues"),
        (r#","nbd":"/s","ublk":true"#, "exclude each other"),
        (r#","vhost_user":"/s","ublk":true"#, "exclude each other"),
        (r#","ublk":"yes""#, "boolean"),
        (r#","nbd":"localhost:10809""#, "127.0.0.1:10809"),
    ] {
        let error = read(more).expect_err(mentions).to_string();
        assert!(error.contains(mentions), "{error}");
    }
}

#[test]
fn a_disk_on_ublk_shares_no_pages_and_tells_its_device() {
    let body = r#"{"name":"swap0","size_bytes":1048576,"ublk":true}"#;
    let spec: DiskSpec = serde_json::from_str(body).expect("ublk");
    assert_eq!((&spec.frontend, spec.check()), (&ublk(None), Ok(())));
    let again = serde_json::to_value(&spec).expect("json");
    assert_eq!(again["ublk"], true);
    assert_eq!(serde_json::from_value::<DiskSpec>(again).expect("the same"), spec);
    let served = Frontend::Ublk { queues: Some(2), device: Some("/dev/ublkb7".into()) };
    let info = DiskInfo::new(&spec, &served);
    assert_eq!(
        (info.transport.as_str(), info.queues, info.dedup),
        (TRANSPORT_UBLK, Some(2), DedupChoice::Off)
    );
    assert_eq!((info.device, info.socket, info.address), (Some("/dev/ublkb7".into()), None, None));
    assert!(served.is_compatible(&served) && served.is_compatible(&vhost_user("/s")));
}

#[test]
fn only_nbd_shares_its_place() {
    assert!(nbd("/s").is_compatible(&nbd("/s")));
    assert!(!nbd("/s").is_compatible(&vhost_user("/s")));
    assert!(!vhost_user("/s").is_compatible(&vhost_user("/s")));
    assert!(nbd("127.0.0.1:1").is_compatible(&vhost_user("/s")));
}
