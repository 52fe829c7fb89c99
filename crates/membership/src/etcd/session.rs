//! One connection to etcd: lease, registration, watch.

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions,
    Txn, TxnOp, TxnOpResponse, WatchOptions, WatchResponse,
};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    claim::{Claim, Claimant, Holder, decide},
    ended::{Ended, Taken},
    keeper::Keeper,
    pace,
    records::{EpochRecord, NodeRecord},
    server::{ANSWER, Server},
    snapshot::Snapshot,
};

/// Two processes that register at once see each other's keys change. More often than this nobody does.
const REGISTRATIONS: usize = 8;

/// Connects, registers, and follows what happens until something is wrong. `was_current` says whether it came so far as to know who is there.
pub(crate) async fn run(keeper: &mut Keeper, server: &Server, was_current: &mut bool) -> Ended {
    let mut session = match Session::open(keeper, server).await {
        Ok(session) => session,
        Err(ended) => return ended,
    };
    match session.follow(was_current).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

/// The node leaves: its key goes with its lease. Where etcd does not answer, it goes when the lease runs out.
pub(crate) async fn leave(servers: &[Server], lease: i64) {
    for server in servers {
        let revoke = async { server.connect().await?.lease_revoke(lease).await.map(drop) };
        if let Ok(Ok(())) = time::timeout(ANSWER, revoke).await {
            return;
        }
    }
}

enum Never {}

struct Session<'a> {
    keeper: &'a mut Keeper,
    server: &'a Server,
    client: Client,
    lease: i64,
    beats: LeaseKeeper,
    heard: LeaseKeepAliveStream,
    /// What the node said at last that it has to lend.
    told_bytes: u64,
}

impl<'a> Session<'a> {
    async fn open(keeper: &'a mut Keeper, server: &'a Server) -> Result<Self, Ended> {
        let mut client = server.answer(server.connect()).await?;
        let kept = match keeper.lease {
            None => None,
            Some(lease) => match time::timeout(ANSWER, client.lease_keep_alive(lease)).await {
                Ok(Ok(kept)) => Some((lease, kept)),
                // It has run out.
                Ok(Err(Error::LeaseKeepAliveError(_))) => None,
                Ok(Err(error)) => return Err(server.refused_or_lost(&error).await),
                Err(_) => return Err(server.silent()),
            },
        };
        let (lease, (beats, heard)) = match kept {
            Some(kept) => kept,
            None => {
                let seconds = keeper.settings.lease.as_secs().cast_signed();
                let lease = server.answer(client.lease_grant(seconds, None)).await?.id();
                (lease, server.answer(client.lease_keep_alive(lease)).await?)
            }
        };
        keeper.lease = Some(lease);
        let mut session = Self { keeper, server, client, lease, beats, heard, told_bytes: 0 };
        session.register().await?;
        Ok(session)
    }

    /// Takes the node's name, in its epoch or in a later one.
    async fn register(&mut self) -> Result<(), Ended> {
        let name = self.keeper.identity.name();
        let (node_key, epoch_key) = (self.keeper.keys.node(name), self.keeper.keys.epoch(name));
        for _ in 0..REGISTRATIONS {
            let look = Txn::new()
                .and_then([TxnOp::get(node_key.as_str(), None), TxnOp::get(epoch_key.as_str(), None)]);
            let looked = self.server.answer(self.client.txn(look)).await?.op_responses();
            let [TxnOpResponse::Get(node), TxnOpResponse::Get(epoch)] = &looked[..] else {
                return Err(self.server.given_up("it answers something else than was asked"));
            };
            let (node, epoch) = (node.kvs().first(), epoch.kvs().first());
            let holder =
                node.map(|kv| Holder { lease: kv.lease(), record: serde_json::from_slice(kv.value()).ok() });
            // A record that nobody can read ends no epoch, and is replaced.
            let last: Option<EpochRecord> = epoch.and_then(|kv| serde_json::from_slice(kv.value()).ok());
            let life = self.keeper.identity.life();
            let claimant = Claimant {
                nonce: self.keeper.identity.nonce(),
                address: self.keeper.address,
                life,
                lease: self.lease,
                had_it: self.keeper.had_name,
            };
            match decide(claimant, holder.as_ref(), last.as_ref()) {
                Claim::Taken(at) => {
                    return Err(Ended::Taken(Taken { name: name.to_string(), own: self.keeper.address, at }));
                }
                Claim::Over { at_least } => {
                    self.keeper.begin_epoch(at_least)?;
                    continue;
                }
                Claim::Granted => {}
            }
            let as_seen = |key: &str, kv: Option<&etcd_client::KeyValue>| {
                Compare::mod_revision(key, CompareOp::Equal, kv.map_or(0, |kv| kv.mod_revision()))
            };
            let free_bytes = self.keeper.shared.free_bytes();
            let take = Txn::new().when([as_seen(&node_key, node), as_seen(&epoch_key, epoch)]).and_then([
                TxnOp::put(node_key.as_str(), self.record(free_bytes)?, Some(self.with_lease())),
                TxnOp::put(epoch_key.as_str(), self.json(&EpochRecord::of(life))?, None),
            ]);
            if self.server.answer(self.client.txn(take)).await?.succeeded() {
                self.keeper.had_name = true;
                self.told_bytes = free_bytes;
                return Ok(());
            }
        }
        Err(self.server.given_up("its keys change all the time"))
    }

    /// Tells who is there, and goes on telling it.
    async fn follow(&mut self, was_current: &mut bool) -> Result<Never, Ended> {
        let prefix = self.keeper.keys.prefix().to_owned();
        let all = self.client.get(prefix.as_str(), Some(GetOptions::new().with_prefix()));
        let all = self.server.answer(all).await?;
        let revision = all.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut snapshot = Snapshot::new(self.keeper.keys.clone(), self.keeper.identity.name());
        all.kvs().iter().for_each(|kv| snapshot.set(kv.key(), Some(kv.value())));
        let from = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        let mut watch = self.server.answer(self.client.watch(prefix.as_str(), Some(from))).await?;

        self.keeper.say_well(&self.server.endpoint, snapshot.nodes());
        self.keeper.tell(snapshot.view());
        *was_current = true;
        let mut beat = time::interval(self.keeper.settings.lease / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = 0;
        let mut told_at = Instant::now();
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    if unanswered > 0 {
                        return Err(self.server.silent());
                    }
                    self.server.answer(self.beats.keep_alive()).await?;
                    unanswered += 1;
                }
                heard = self.heard.message() => {
                    let heard = heard.map_err(|error| self.server.failed(&error))?;
                    unanswered = 0;
                    if heard.ok_or_else(|| self.server.silent())?.ttl() <= 0 {
                        return Err(self.server.given_up("its lease has run out"));
                    }
                }
                events = watch.message() => {
                    let events = events.map_err(|error| self.server.failed(&error))?;
                    let events = events.ok_or_else(|| self.server.silent())?;
                    if events.canceled() {
                        return Err(self.server.refused(events.cancel_reason()));
                    }
                    self.take_in(&mut snapshot, &events)?;
                }
                () = time::sleep_until(told_at + pace::interval(snapshot.nodes())) => {
                    self.tell_free_bytes().await?;
                    told_at = Instant::now();
                }
            }
        }
    }

    fn take_in(&mut self, snapshot: &mut Snapshot, events: &WatchResponse) -> Result<(), Ended> {
        let name = self.keeper.identity.name();
        let (node_key, epoch_key) = (self.keeper.keys.node(name), self.keeper.keys.epoch(name));
        let mut own = Ok(());
        for event in events.events() {
            let Some(kv) = event.kv() else { continue };
            let value = (event.event_type() == EventType::Put).then(|| kv.value());
            snapshot.set(kv.key(), value);
            if kv.key() == node_key.as_bytes() && (value.is_none() || kv.lease() != self.lease) {
                own = Err(self.server.given_up("its key is gone, or another process's"));
            }
            let life = self.keeper.identity.life();
            let is_own =
                |value| serde_json::from_slice(value).is_ok_and(|record: EpochRecord| record.is(life));
            if kv.key() == epoch_key.as_bytes() && !value.is_some_and(is_own) {
                own = Err(self.server.given_up("its epoch is over"));
            }
        }
        self.keeper.tell(snapshot.view());
        own
    }

    /// Says what the node has to lend, if that is news, and only as long as the name is its own.
    async fn tell_free_bytes(&mut self) -> Result<(), Ended> {
        let free_bytes = self.keeper.shared.free_bytes();
        if !pace::is_news(self.told_bytes, free_bytes) {
            return Ok(());
        }
        let key = self.keeper.keys.node(self.keeper.identity.name());
        let put = Txn::new()
            .when([Compare::lease(key.as_str(), CompareOp::Equal, self.lease)])
            .and_then([TxnOp::put(key, self.record(free_bytes)?, Some(self.with_lease()))]);
        if !self.server.answer(self.client.txn(put)).await?.succeeded() {
            return Err(self.server.given_up("its key is gone, or another process's"));
        }
        self.told_bytes = free_bytes;
        Ok(())
    }

    fn record(&self, free_bytes: u64) -> Result<Vec<u8>, Ended> {
        self.json(&NodeRecord {
            address: self.keeper.address,
            domain: self.keeper.domain.clone(),
            epoch: self.keeper.identity.epoch().0,
            free_bytes,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nonce: self.keeper.identity.nonce().to_owned(),
        })
    }

    fn json(&self, record: &impl serde::Serialize) -> Result<Vec<u8>, Ended> {
        serde_json::to_vec(record).map_err(|error| self.server.wrong(error.to_string()))
    }

    fn with_lease(&self) -> PutOptions {
        PutOptions::new().with_lease(self.lease)
    }
}
