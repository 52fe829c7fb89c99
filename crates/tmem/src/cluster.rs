//! This host in a cluster: it lends its idle memory, and has the memory of others as its tier.
//!
//! What takes root's rights, its identity and the epoch in it, is done before the process is confined ([`ClusterPlan`]); all threads begin after that
//! ([`ClusterPlan::start`]). It lends when guests are served ([`Cluster::begin_lending`]).
//!
//! | file | job |
//! |---|---|
//! | `cluster` | puts the parts together |
//! | `etcd` | how etcd is spoken to |
//! | `lent` | what was lent before |
//! | `idle_memory` | how much of this host can be lent now |
//! | `tending` | what is done once a second |
//! | `report` | how the cluster is, for people |

mod etcd;
mod idle_memory;
mod lent;
mod report;
mod tending;

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tmem_control::{ClusterSettings, Config, EncryptPages, Frontend, Knobs};
use tmem_keeper::Estate;
use tmem_membership::{
    Announcement, Epoch, Identity, Source, StaticPeer, View, certificates, check_domain, check_peers,
};
use tmem_peers::{LendingOptions, LendingServer, LentBy, Member, PeerTier, PeerTierOptions, Security};
use tmem_store::{FileKeeper, Store, Tier};

use crate::{memo::Memory, tiers::TendedTier};
pub(crate) use lent::{Lent, free_soon};
use tending::Tending;

/// How long others have at the end to take elsewhere what they have here.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long peers are waited for at the end that are to forget what this host had there.
const FORGETTING: Duration = Duration::from_secs(2);

/// How many days before its end a certificate is worth a warning.
const WARNED_DAYS: i64 = 30;

/// The part in a cluster that there is to be.
#[derive(Debug)]
pub(crate) struct ClusterPlan {
    settings: ClusterSettings,
    identity: Arc<Identity>,
    security: Security,
    source: Source,
    /// On how many peers each extent of this host is to be. 0: it does not borrow.
    copies: usize,
    /// The tier on this host's disk, which has a copy of each extent as well. `None`: peers are the tier.
    backing: Option<String>,
    /// What is lent. `None`: this has not been looked at.
    lent: Option<Lent>,
}

impl ClusterPlan {
    /// What the configuration asks for. Reads the node's identity and certificates, and what it takes to speak to etcd: this process may not do
    /// so later.
    ///
    /// # Errors
    /// It makes no sense, or these can't be read.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        let Some(settings) = config.cluster()? else { return Ok(None) };
        let source = match settings.etcd.is_empty() {
            true => Source::Static(peers(settings).context("[cluster] peers")?),
            false => Source::Etcd(etcd::settings(settings)?),
        };
        settings.domain.as_deref().map_or(Ok(()), check_domain).context("[cluster] domain")?;
        let directory = &settings.directory;
        let identity = Identity::load(directory).context("[cluster] directory")?;
        let (server, client) = certificates::tls_configs(directory).context("[cluster] directory")?;
        let security = Security::Tls {
            client,
            server,
            name_of: Arc::new(|certificates| {
                let name = certificates::peer_name(certificates).map_err(|error| error.to_string())?;
                Ok(name.to_string())
            }),
            in_words: certificates::in_words,
        };
        // One of the copies is the disk's, if there is one. A server is a tier of its own.
        let backing = config.tier()?.map(|(path, _)| path.display().to_string());
        let copies = match (&backing, config.redis_tier()?) {
            (_, Some(_)) => 0,
            (Some(_), None) => settings.copies.count() - 1,
            (None, None) => settings.copies.count(),
        };
        let (settings, identity) = (settings.clone(), Arc::new(identity));
        Ok(Some(Self { settings, identity, security, source, copies, backing, lent: None }))
    }

    /// Goes on in the node's epoch, with what the worker before this one has lent, the memory files that it left to the keeper, where that is possible. Otherwise
    /// that is given up, and the next epoch begins, or a later one if `least_epoch` is. `has_store`: this process has the store of the one before it, by which
    /// peers know it.
    ///
    /// Gives files that were given up, to be dropped where nobody waits for their memory to be given back.
    ///
    /// # Errors
    /// The epoch can't be written. What was lent is given up.
    pub(crate) fn come_into(
        &mut self,
        left: Vec<(String, OwnedFd)>,
        keeper: Arc<dyn FileKeeper>,
        has_store: bool,
        least_epoch: Option<u64>,
    ) -> Result<Vec<OwnedFd>> {
        let (identity, least_epoch) = (&self.identity, least_epoch.map(Epoch));
        let is_over = least_epoch.is_some_and(|least| least > identity.epoch());
        let may_go_on = has_store && !is_over && self.settings.listen.is_some();
        let by =
            || LentBy { cluster: identity.cluster().0, node: identity.node_id(), epoch: identity.epoch() };
        if !left.is_empty() && may_go_on && lent::can_go_on(by(), &left) {
            self.lent = Some(Lent::new(by(), left, keeper));
            return Ok(Vec::new());
        }
        let given_up = tmem_peers::give_up(left, &*keeper);
        identity.advance_epoch(least_epoch).context("[cluster] directory")?;
        self.lent = Some(Lent::new(by(), Vec::new(), keeper));
        Ok(given_up)
    }

    /// What there is to be lent, for [`Cluster::begin_lending`].
    pub(crate) fn take_lent(&mut self) -> Option<Lent> {
        self.lent.take()
    }

    /// Says what is possible and not wise.
    pub(crate) fn warn(&self, config: &Config) {
        match certificates::days_left(&self.settings.directory) {
            Ok(days) if days < WARNED_DAYS => log::warn!(
                "cluster: the certificate of node {} is good for {days} more days; see `tmem cluster renew --help`",
                self.identity.name()
            ),
            Ok(_) => {}
            Err(error) => log::warn!("cluster: {error}"),
        }
        etcd::warn(&self.settings);
        if self.copies == 0 {
            log::info!("cluster: this host has a tier of its own, and only lends");
            return;
        }
        if self.backing.is_none() && self.copies == 1 {
            log::warn!("cluster: with one copy, pages are lost with the host that has it");
        }
        if config.disks.iter().any(|disk| matches!(disk.frontend, Frontend::Ublk { .. })) {
            log::warn!(
                "pages go to peers and a disk is on ublk: if this host swaps to that disk, sending to peers may need memory that there is none of; a file or block device alone does not"
            );
        }
    }

    /// Borrows from here on, and is known to others. The process is confined, and the store has no tier yet; `disk` is the one that this host has of its own.
    ///
    /// # Errors
    /// Threads or sockets can't be had.
    pub(crate) fn start(
        self,
        store: &Arc<Store>,
        disk: Option<&Arc<dyn TendedTier>>,
        knobs: &Arc<Knobs>,
        memory: Memory,
    ) -> Result<Cluster> {
        let own = as_peer(&self.identity);
        let tier = (self.copies > 0).then(|| self.borrow(store, disk, own)).transpose()?;
        let is_current = Arc::new(AtomicBool::new(false));
        let on_view = {
            let (tier, is_current) = (tier.clone(), Arc::clone(&is_current));
            move |view: View| {
                is_current.store(view.is_current, Relaxed);
                // Nobody known is nobody there only if somebody says so.
                let is_told = view.is_current || !view.members.is_empty();
                if let Some(tier) = tier.as_ref().filter(|_| is_told) {
                    tier.set_members(&members(&view));
                    tier.fence(&view.epochs);
                }
            }
        };
        let announcement = Announcement {
            address: self.settings.listen.unwrap_or(NOWHERE),
            domain: self.settings.domain.clone(),
            free_bytes: 0,
        };
        let on_fenced = move |least: Epoch| -> Result<(), String> { Err(end_for(&memory, least)) };
        let membership =
            tmem_membership::start(&self.source, &self.identity, announcement, on_view, on_fenced)
                .context("[cluster]")?;
        let lending = Arc::<OnceLock<LendingServer>>::default();
        let tending = Tending::start(membership, Arc::clone(&lending), Arc::clone(knobs))?;
        let Self { settings, identity, security, source, copies, backing, .. } = self;
        Ok(Cluster {
            settings,
            identity,
            security,
            source,
            copies,
            backing,
            lending,
            tier,
            is_current,
            tending,
        })
    }

    fn borrow(
        &self,
        store: &Arc<Store>,
        disk: Option<&Arc<dyn TendedTier>>,
        own: tmem_peers::Identity,
    ) -> Result<Arc<PeerTier>> {
        let name = match &self.backing {
            Some(path) => format!("peers and {path}"),
            None => "peers".to_owned(),
        };
        let options = PeerTierOptions {
            name,
            identity: own,
            security: self.security.clone(),
            copies: self.copies,
            encrypt: self.settings.encrypt == EncryptPages::On,
            repair_bytes_per_second: self.settings.repair_bandwidth.bytes(),
            repair_delay: PeerTierOptions::REPAIR_DELAY,
            more_members_may_come: matches!(self.source, Source::Etcd(_)),
        };
        let tier = match disk {
            Some(disk) => PeerTier::backed(options, Arc::clone(disk) as Arc<dyn Tier>),
            None => PeerTier::new(options),
        };
        let tier = Arc::new(tier.context("cannot start borrowing")?);
        tier.adopt(store.tier_copies().into_iter().map(|(copy, _)| copy));
        // The store has the tier.
        let store = Arc::downgrade(store);
        tier.set_filter(move |copy, extent| {
            store.upgrade().map_or_else(Vec::new, |store| store.needed_of_tier_copy(copy, extent))
        });
        Ok(tier)
    }
}

/// What a node says that does not lend, of a list that others have, too. Nobody is told.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// The part that this host has in a cluster.
pub(crate) struct Cluster {
    settings: ClusterSettings,
    identity: Arc<Identity>,
    source: Source,
    /// On how many peers each extent is to be.
    copies: usize,
    /// Which tier on a disk has a copy of each as well.
    backing: Option<String>,
    security: Security,
    /// Nothing: it does not lend, or not yet.
    lending: Arc<OnceLock<LendingServer>>,
    /// `None`: it only lends.
    tier: Option<Arc<PeerTier>>,
    /// Whether what is known of who is there is so now.
    is_current: Arc<AtomicBool>,
    tending: Tending,
}

impl Cluster {
    /// Peers' memory, where that is the tier, with the disk behind it or alone.
    pub(crate) fn tier(&self) -> Option<Arc<dyn TendedTier>> {
        self.tier.clone().map(|tier| tier as Arc<dyn TendedTier>)
    }

    /// Lends from here on. Whoever waits for this process is served by now: what was lent before is found again, which may take a while. A process
    /// that `goes_on` with what another one had does so without lending if need be.
    ///
    /// # Errors
    /// Sockets or threads can't be had. What was lent is given up.
    pub(crate) fn begin_lending(
        &self,
        lent: Lent,
        estate: &Estate,
        knobs: &Knobs,
        goes_on: bool,
    ) -> Result<()> {
        let Some(address) = self.settings.listen else { return Ok(()) };
        let lending = lent.lend(|lender| {
            let listener = estate.bind_tcp(address).with_context(|| {
                format!("[cluster] cannot listen on {address}; it must be an address of this host, and free")
            })?;
            let options = LendingOptions {
                max_bytes: self.settings.lend.max_bytes(),
                reserve_bytes: idle_memory::reserve_bytes(knobs)
                    .context("cannot look at this host's memory")?,
                ..LendingOptions::default()
            };
            let (own, available) = (as_peer(&self.identity), idle_memory::available_bytes());
            LendingServer::start(listener, own, self.security.clone(), options, lender, available)
                .context("cannot start lending")
        });
        match lending {
            Ok(lending) => {
                self.tending.set_free_bytes(lending.free_bytes());
                self.lending.get_or_init(|| lending);
            }
            // What this host has at others is worth more than what they have here.
            Err(error) if goes_on => {
                log::error!("{error:#}; goes on without lending until `tmem upgrade`");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The orderly end: nobody is to miss this node, or what it has.
    pub(crate) fn leave(&self) {
        // Those that are told that it has left ask it for nothing any more.
        if let Some(lending) = self.lending.get()
            && !lending.wind_down(FAREWELL)
        {
            log::warn!(
                "lending: not all that others have here is elsewhere by now; what had one copy is lost"
            );
        }
        self.tending.leave();
    }
}

impl TendedTier for PeerTier {
    fn probe(&self) {
        // Its threads do so.
    }

    fn clear(&self) {
        if !PeerTier::clear(self, FORGETTING) {
            log::warn!(
                "not all peers have forgotten what this host had there; they keep it as long as it is in nobody's way"
            );
        }
    }
}

fn as_peer(identity: &Identity) -> tmem_peers::Identity {
    tmem_peers::Identity { cluster: identity.cluster().0, name: identity.name(), epoch: identity.epoch() }
}

fn peers(settings: &ClusterSettings) -> Result<Vec<StaticPeer>> {
    let peers = settings.peers.iter().map(|text| text.parse()).collect::<Result<Vec<StaticPeer>, _>>()?;
    check_peers(&peers)?;
    Ok(peers)
}

fn members(view: &View) -> Vec<Member> {
    let member = |member: &tmem_membership::Member| Member {
        name: member.name,
        address: member.address.to_string(),
        domain: member.domain.clone(),
        epoch: member.epoch,
    };
    view.members.iter().map(member).collect()
}

/// The node's epoch is over: this process ends, with all that it lends, and the next one begins another epoch. It has root's rights when it does.
/// Returns only if that is not possible, and says why.
fn end_for(memory: &Memory, least: Epoch) -> String {
    if let Err(error) = memory.change(|memo| memo.least_epoch = Some(least.0)) {
        return format!("{error:#}");
    }
    log::error!(
        "cluster: a later epoch of this node, {}, was begun elsewhere: what is lent here is dropped, and this process ends for another one to take over",
        least.0
    );
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io, os::fd::BorrowedFd, path::Path, sync::Mutex};

    use tmem_peers::Hello;

    use super::*;

    fn plan(text: &str) -> Result<Option<ClusterPlan>> {
        ClusterPlan::new(&Config::parse(text, Path::new("t.toml")).expect("config"))
    }

    #[test]
    fn a_section_is_a_plan_and_what_is_wrong_with_it_is_one_line() {
        assert!(plan("").expect("nothing").is_none());
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().join("cluster");
        tmem_membership::setup::init(&at, "host-a").expect("a cluster");
        let section = |rest: &str| {
            format!("[cluster]\nlisten = \"10.0.0.1:7790\"\ndirectory = \"{}\"\n{rest}", at.display())
        };
        let list = "peers = [\"host-b=10.0.0.2:7790\"]";
        let made = plan(&section(list)).expect("a plan").expect("a cluster");
        assert_eq!((made.copies, &made.backing), (2, &None));
        assert!(matches!(made.source, Source::Static(_)));
        // One copy is on the disk, if there is one.
        for (before, rest, copies) in [
            ("tier = \"/t\"\ntier-size = \"1G\"\n", "", 1),
            ("tier = \"/t\"\ntier-size = \"1G\"\n", "copies = 3", 2),
            ("tier = \"/t\"\ntier-size = \"1G\"\n", "copies = 1", 0),
            ("tier = \"redis://h\"\ntier-size = \"1G\"\n", "", 0),
        ] {
            let text = format!("{before}{}", section(&format!("{list}\n{rest}")));
            assert_eq!(plan(&text).expect("a plan").expect("a cluster").copies, copies, "{before}{rest}");
        }
        let made = plan(&section("etcd = [\"http://10.0.0.9:2379\"]")).expect("a plan").expect("a cluster");
        assert!(matches!(made.source, Source::Etcd(_)));
        for (text, part) in [
            (section("peers = [\"host-b\"]"), "host-b"),
            (section("peers = [\"b=10.0.0.2:1\", \"b=10.0.0.3:1\"]"), "twice"),
            (section("etcd = [\"10.0.0.9\"]"), "http://HOST:PORT"),
            (section(&format!("{list}\ndomain = \"rack 1\"")), "rack 1"),
            (section(list).replace("/cluster\"", "/nothing\""), "tmem cluster init"),
        ] {
            let error = format!("{:#}", plan(&text).expect_err("an error"));
            assert!(error.contains(part) && error.contains("[cluster]") && !error.contains('\n'), "{error}");
        }
    }

    /// Keeps files as the keeper does.
    #[derive(Default)]
    struct Files(Mutex<BTreeMap<String, OwnedFd>>);

    impl Files {
        fn left(&self) -> Vec<(String, OwnedFd)> {
            let files = self.0.lock().expect("files");
            files.iter().map(|(name, file)| (name.clone(), file.try_clone().expect("a file"))).collect()
        }
    }

    impl FileKeeper for Files {
        fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
            self.0.lock().expect("files").insert(name.to_owned(), file.try_clone_to_owned()?);
            Ok(())
        }

        fn release(&self, name: &str) {
            self.0.lock().expect("files").remove(name).expect("kept");
        }
    }

    #[test]
    fn epochs_grow_with_each_process_unless_it_goes_on_with_what_was_lent() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().join("cluster");
        tmem_membership::setup::init(&at, "host-a").expect("a cluster");
        let text = |lend: &str| {
            format!("[cluster]\n{lend}\ndirectory = \"{}\"\npeers = [\"b=10.0.0.2:1\"]", at.display())
        };
        let files = Arc::<Files>::default();
        let come_with = |lend: &str, has_store, least| {
            let mut plan = plan(&text(lend)).expect("a plan").expect("a cluster");
            drop(plan.come_into(files.left(), files.clone(), has_store, least).expect("come into"));
            (plan.identity.epoch().0, plan.lent.expect("looked at").lend(Ok).expect("a lender"))
        };
        let come = |lend: &str, least| come_with(lend, true, least);
        let lends = "listen = \"127.0.0.1:7790\"";
        let epoch = |least| come("lend = \"off\"", least).0;
        let first = epoch(None);
        assert_eq!((epoch(None), epoch(Some(first + 7)), epoch(Some(3))), (first + 1, first + 7, first + 8));
        let borrower = Hello { cluster: 1, name: "b".parse().expect("a name"), epoch: Epoch(1), store: 1 };
        // Nobody has anything here: nothing is worth going on with.
        let (second, _) = come(lends, None);
        assert_eq!(second, first + 9);
        for (has_store, least, goes_on) in [
            (true, None, true),
            (true, Some(first), true),
            (true, Some(second + 100), false),
            (false, None, false),
        ] {
            come(lends, None).1.admit(&borrower).expect("admitted");
            let (lent_in, lender) = come(lends, None);
            assert_eq!((files.left().len(), lender.usage().len()), (1, 1));
            let (then, lender) = come_with(lends, has_store, least);
            assert_eq!((then == lent_in, lender.usage().len()), (goes_on, goes_on.into()), "{least:?}");
        }
        // One that does not lend any more drops it all.
        come(lends, None).1.admit(&borrower).expect("admitted");
        assert_eq!(files.left().len(), 1);
        assert!(come("lend = \"off\"", None).1.usage().is_empty() && files.left().is_empty());
    }
}
