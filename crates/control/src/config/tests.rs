use super::*;

const SAMPLE: &str = include_str!("../../../../packaging/tmem.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("t.toml")).map_err(|error| error.to_string())
}

#[test]
fn nothing_said_means_the_defaults() {
    assert_eq!(parse(""), Ok(Config::default()));
    let config = Config::default();
    assert_eq!(config.http.to_string(), "127.0.0.1:7780");
    assert_eq!((config.poll_us, config.log_level, config.pool_size), (1000, LogLevel::Info, PoolSize::Auto));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        "pool-size = \"4G\"\nreserve = \"2G\"\npool-ceiling = \"8G\"\nreaction-ms = 50\nhttp = \"off\"\npoll-us = 0\nmax-compressed = 50\nrecompress = \"off\"\n\
         recompress-age = 5\nrecompress-level = 19\nbackground-cpu = 100\nlog-level = \"debug\"\n\
         sandbox = \"on\"\nuser = \"nobody\"\nspare-worker = \"on\"\n\
         tier = \"/t\"\ntier-size = \"8G\"\ntier-mode = \"write-through\"\nwrite-back-age = 600\nzero-on-flush = \"on\"\nnbd-tls-cert = \"/c\"\nnbd-tls-key = \"/k\"\nnbd-tls-client-ca = \"/a\"\n\
         [[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/s/a\"\ncap = \"512M\"\nweight = 7\nformat = \"none\"\nqueues = 3\n\
         [[disk]]\nname = \"b\"\nsize = 1048576\nvhost-user = \"/s/b\"\n\
         [[disk]]\nname = \"c\"\nsize = \"1M\"\nnbd = \"[::1]:10809\"\n\
         [[disk]]\nname = \"d\"\nsize = \"1M\"\nublk = true\nqueues = 2\n",
    )
    .expect("config");
    assert_eq!(config.pool_size, PoolSize::Fixed(ByteSize::from_bytes(4 << 30)));
    assert_eq!((config.http, config.poll_us, config.log_level), (HttpListen::Off, 0, LogLevel::Debug));
    assert_eq!((config.pool_ceiling.bytes(), config.reaction.milliseconds()), (8 << 30, 50));
    assert_eq!(config.reserve, Reserve::Fixed(ByteSize::from_bytes(2 << 30)));
    assert_eq!((config.recompress, config.zero_on_flush), (Recompress::Off, ZeroOnFlush::On));
    assert_eq!((config.sandbox, config.user.as_deref()), (Sandbox::On, Some("nobody")));
    assert_eq!(config.spare_worker, SpareWorker::On);
    for (written, meant) in [("true", Sandbox::On), ("false", Sandbox::Off), ("\"off\"", Sandbox::Off)] {
        assert_eq!(parse(&format!("sandbox = {written}")).map(|config| config.sandbox), Ok(meant));
    }
    assert_eq!(config.max_compressed.percent(), 50);
    assert_eq!((config.recompress_age.seconds(), config.recompress_level.level()), (5, 19));
    assert_eq!(config.background_cpu.percent(), 100);
    assert_eq!(config.tier().expect("a tier"), Some((Path::new("/t"), Some(8 << 30))));
    assert!(matches!(parse("tier-size = \"1G\"").expect("config").tier(), Err(ControlError::TierSizeAlone)));
    assert_eq!(config.redis_tier().expect("a file"), None);
    let redis = parse(
        "tier = \"redis://h:1\"\ntier-size = \"8G\"\nredis-prefix = \"a\"\nredis-expiry = 60\nredis-replicas = 2\n\
         redis-password-file = \"/p\"\nredis-ca = \"/c\"",
    )
    .expect("config");
    assert_eq!(
        (redis.tier().ok(), redis.redis_tier().ok()),
        (Some(None), Some(Some(("redis://h:1", 8 << 30))))
    );
    assert_eq!((redis.redis_prefix.as_str(), redis.redis_replicas.count()), ("a", 2));
    assert_eq!(redis.redis_expiry.time(), Duration::from_secs(60));
    assert_eq!((redis.redis_password_file, redis.redis_ca), (Some("/p".into()), Some("/c".into())));
    let sizeless = parse("tier = \"redis://h:1\"").expect("config");
    assert!(matches!(sizeless.redis_tier(), Err(ControlError::TierSizeNeeded)));
    let options = config.write_back();
    assert_eq!((options.age, options.write_through), (Some(Duration::from_secs(600)), true));
    let tls = config.nbd_tls().expect("all three").expect("TLS");
    assert_eq!((tls.cert, tls.key, tls.client_ca), ("/c".into(), "/k".into(), "/a".into()));
    let [a, b, c, d] = config.disks.as_slice() else { panic!("four disks") };
    let vhost_user = |socket: &str, queues| Frontend::VhostUser { socket: socket.into(), queues };
    assert_eq!((a.size_bytes, a.cap_bytes, a.format), (2 << 30, Some(512 << 20), DiskFormat::None));
    assert_eq!((a.weight.get(), b.weight.get()), (7, 100));
    assert_eq!((b.size_bytes, b.cap_bytes, b.format), (1 << 20, None, DiskFormat::Swap));
    assert_eq!((&a.frontend, &b.frontend), (&vhost_user("/s/a", 3), &vhost_user("/s/b", 4)));
    assert_eq!(c.frontend, Frontend::Nbd("[::1]:10809".parse().expect("address")));
    assert_eq!(d.frontend, Frontend::Ublk { queues: Some(2), device: None });
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let error = parse("http = \"off\"\npool-sise = \"4G\"\n").unwrap_err();
    assert!(
        error.contains("t.toml, line 2") && error.contains("pool-sise") && error.contains("pool-size"),
        "{error}"
    );
    let error =
        parse("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\npriority = 3\n").unwrap_err();
    assert!(error.contains("line 5") && error.contains("priority"), "{error}");
}

#[test]
fn values_that_make_no_sense_are_one_line_that_names_them() {
    for (text, mentions) in [
        ("pool-size = \"4X\"", "4X"),
        ("pool-size = 0", "holds nothing"),
        ("pool-size = -5", "-5"),
        ("pool-size = 1.5", "a size such as"),
        ("http = \"everywhere\"", "everywhere"),
        ("poll-us = -1", "-1"),
        ("poll-us = 1000001", "1000001"),
        ("recompress = \"maybe\"", "maybe"),
        ("zero-on-flush = \"maybe\"", "maybe"),
        ("recompress = true", "expected a string"),
        ("recompress-age = -1", "-1"),
        ("recompress-age = 0", "1 to 86400"),
        ("recompress-age = \"1m\"", "expected i64"),
        ("recompress-level = 20", "1 to 19"),
        ("background-cpu = 0", "1 to 100"),
        ("pool-ceiling = \"auto\"", "auto"),
        ("pool-ceiling = 1000", "at least 1M"),
        ("pool-ceiling = 1.5", "a size such as"),
        ("reaction-ms = 9", "10 to 10000"),
        ("reaction-ms = \"1s\"", "expected i64"),
        ("max-compressed = 0", "1 to 100"),
        ("max-compressed = 101", "101"),
        ("background-cpu = 101", "101"),
        ("tier-mode = \"through\"", "write-through"),
        ("tier = 3", "expected path"),
        ("redis-expiry = 5", "2592000"),
        ("redis-prefix = \"a:b\"", "letters"),
        ("redis-replicas = 9", "0 to 8"),
        ("write-back-age = 0", "1 to 86400"),
        ("write-back-age = \"never\"", "off"),
        ("write-back-age = 1.5", "seconds or"),
        ("log-level = \"loud\"", "loud"),
        ("sandbox = \"perhaps\"", "perhaps"),
        ("sandbox = 1", "on, off, true or false"),
        ("spare-worker = \"perhaps\"", "on or off"),
        ("user = 998", "expected a string"),
        ("disk = 3", "disk"),
        ("[[disk]]\nsize = \"2G\"\nvhost-user = \"/a\"", "name"),
        ("[[disk]]\nname = \"a b\"\nsize = \"2G\"\nvhost-user = \"/a\"", "`a b`"),
        ("[[disk]]\nname = \"a\"\nsize = \"1K\"\nvhost-user = \"/a\"", "at least 1M"),
        ("[[disk]]\nname = \"a\"\nsize = \"-2G\"\nvhost-user = \"/a\"", "-2G"),
        ("[[disk]]\nname = \"a\"\nsize = -2\nvhost-user = \"/a\"", "negative"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"a.sock\"", "a.sock"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nformat = \"ext4\"", "ext4"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nqueues = 0", "queues"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nweight = 0", "1 to 10000"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"", "disk a: neither"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nnbd = \"/b\"", "exclude"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nublk = true\nnbd = \"/b\"", "exclude"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nublk = true\ndedup = \"tenant\"", "dedup tenant"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nublk = \"/dev/ublkb0\"", "boolean"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nnbd = \"localhost:10809\"", "localhost"),
        ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nnbd = \"nbd.sock\"", "nbd.sock"),
        ("http = ", "line 1"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(
            error.contains(mentions) && !error.contains('\n') && error.contains("t.toml"),
            "{text}: {error}"
        );
    }
}

#[test]
fn two_disks_share_neither_name_nor_socket() {
    let disk = |name: &str, socket: &str| {
        format!("[[disk]]\nname = \"{name}\"\nsize = \"2M\"\nvhost-user = \"{socket}\"\n")
    };
    let error = parse(&(disk("a", "/a") + &disk("a", "/b"))).unwrap_err();
    assert!(error.contains("disk a") && error.contains("twice"), "{error}");
    let error = parse(&(disk("a", "/a") + &disk("b", "/a"))).unwrap_err();
    assert!(error.contains("disk b") && error.contains("/a"), "{error}");
    // But NBD has room for both at one address.
    let nbd = |name: &str| disk(name, "/a").replace("vhost-user", "nbd");
    assert!(parse(&(nbd("a") + &nbd("b"))).is_ok());
    assert!(parse(&(nbd("a") + &disk("b", "/a"))).is_err());
}

#[test]
fn an_error_that_quotes_a_line_break_is_one_line() {
    let text = "[[disk]]\nname = \"a\"\nsize = \"2M\"\nvhost-user = \"b\\nc\"";
    let error = parse(text).unwrap_err();
    assert!(error.contains(r"`b\nc` is relative"), "{error}");
    assert!(!parse("tier-mode = \"a\\nb\"").unwrap_err().contains('\n'));
    assert!(!parse("\u{1b}[2J = 1").unwrap_err().contains('\u{1b}'));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::read(Path::new("/nowhere/tmem.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/tmem.toml"), "{error}");
}

#[test]
fn the_sample_file_changes_nothing_as_it_is() {
    assert_eq!(parse(SAMPLE), Ok(Config::default()));
}

/// The sample shows each key as a comment `#key = value`; prose comments have a space after the `#`.
#[test]
fn every_key_of_the_sample_is_real_and_shows_its_default() {
    let shown: String = SAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let table: toml::Table = shown.parse().expect("sample with its comments taken off");
    let keys: Vec<_> = table.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "background-cpu",
            "balance",
            "cluster",
            "disk",
            "http",
            "log-level",
            "max-compressed",
            "poll-us",
            "pool-ceiling",
            "pool-size",
            "reaction-ms",
            "recompress",
            "recompress-age",
            "recompress-level",
            "redis-expiry",
            "redis-prefix",
            "redis-replicas",
            "reserve",
            "sandbox",
            "spare-worker",
            "tier-mode",
            "watchdog",
            "worker-deaths",
            "write-back-age",
            "zero-on-flush"
        ],
        "every top-level key is in the sample"
    );
    let balance = table["balance"].as_table().expect("a section");
    let balance_keys: Vec<_> = balance.keys().map(String::as_str).collect();
    let keys = ["budget", "dry-run", "guest", "idle-pressure", "idle-swap-ins", "interval", "policy", "step"];
    assert_eq!(balance_keys, keys);
    let guest = balance["guest"][0].as_table().expect("a guest section");
    let guest_keys: Vec<_> = guest.keys().map(String::as_str).collect();
    assert_eq!(guest_keys, ["ceiling", "floor", "name", "qmp", "weight"]);
    let cluster = table["cluster"].as_table().expect("a section");
    let cluster_keys: Vec<_> = cluster.keys().map(String::as_str).collect();
    assert_eq!(
        cluster_keys,
        ["copies", "directory", "encrypt", "lend", "listen", "peers", "repair-bandwidth"]
    );
    let disk = table["disk"][0].as_table().expect("a disk section");
    let disk_keys: Vec<_> = disk.keys().map(String::as_str).collect();
    assert_eq!(disk_keys, ["cap", "dedup", "format", "name", "queues", "size", "vhost-user", "weight"]);

    let config = parse(&shown).expect("the values parse");
    let balance = BalanceSettings { guests: Vec::new(), ..config.balance.clone() };
    assert_eq!((balance, config.balance.guests.len()), (BalanceSettings::default(), 1));
    let [disk] = config.disks.as_slice() else { panic!("one disk") };
    assert_eq!(disk.format, DiskFormat::default());
    assert!(matches!(disk.frontend, Frontend::VhostUser { queues: 4, .. }));
    assert_eq!((&disk.dedup, disk.weight), (&DedupChoice::default(), tmem_store::Weight::default()));
    let cluster = config.cluster().expect("goes with each other").expect("a section");
    assert!(cluster.listen.is_some() && !cluster.peers.is_empty());
    assert_eq!(
        ClusterSettings { listen: None, peers: Vec::new(), ..cluster.clone() },
        ClusterSettings::default()
    );
    assert_eq!(
        Config { disks: Vec::new(), balance: BalanceSettings::default(), cluster: None, ..config },
        Config::default()
    );
}
