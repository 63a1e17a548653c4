//! Random events against an obvious model: a list of what was granted, checked pairwise after every event.

use std::collections::{HashMap, HashSet};

use mortar_types::fop::LockType;
use proptest::prelude::*;

use super::*;

const CLIENTS: u64 = 3;
const BYTES: u64 = 12;
const FILE: Gfid = Gfid([7; 16]);

#[derive(Clone, Debug)]
enum Event {
    Inodelk { client: u64, owner: u64, write: bool, start: u64, len: u64, wait: bool },
    InodelkUnlock { nth: usize },
    Entrylk { client: u64, owner: u64, name: Option<u8>, wait: bool },
    EntrylkUnlock { nth: usize },
    Posixlk { client: u64, owner: u64, kind: u8, start: u64, len: u64, wait: bool },
    Flush { client: u64, owner: u64 },
    Removal { client: u64 },
    RemovalEnd,
    Cancel { nth: usize },
    Gone { client: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let who = || (1..=CLIENTS, 1..=2u64);
    let range = || (0..BYTES, 0..BYTES);
    prop_oneof![
        6 => (who(), range(), any::<bool>(), any::<bool>()).prop_map(|((client, owner), (start, len), write, wait)| {
            Event::Inodelk { client, owner, write, start, len, wait }
        }),
        5 => any::<usize>().prop_map(|nth| Event::InodelkUnlock { nth }),
        4 => (who(), proptest::option::of(0..3u8), any::<bool>())
            .prop_map(|((client, owner), name, wait)| Event::Entrylk { client, owner, name, wait }),
        3 => any::<usize>().prop_map(|nth| Event::EntrylkUnlock { nth }),
        6 => (who(), range(), 0..3u8, any::<bool>()).prop_map(|((client, owner), (start, len), kind, wait)| {
            Event::Posixlk { client, owner, kind, start, len, wait }
        }),
        1 => who().prop_map(|(client, owner)| Event::Flush { client, owner }),
        1 => (1..=CLIENTS).prop_map(|client| Event::Removal { client }),
        1 => Just(Event::RemovalEnd),
        1 => any::<usize>().prop_map(|nth| Event::Cancel { nth }),
        1 => (1..=CLIENTS).prop_map(|client| Event::Gone { client }),
    ]
}

/// A request as it was made.
#[derive(Clone, Debug)]
enum Asked {
    Inodelk(Inodelk),
    Entrylk(Entrylk),
    Posixlk(Posixlk),
    Removal(ClientId),
    /// Gives something back; answered, then forgotten.
    Unlock,
}

/// Byte by byte, who holds what kind of POSIX lock.
type PosixMap = HashMap<(Holder, u64), bool>;

struct Model {
    table: LockTable,
    next: u64,
    /// Not answered yet, oldest first.
    pending: Vec<(Ticket, Asked)>,
    inodelks: Vec<Inodelk>,
    entrylks: Vec<Entrylk>,
    posix: PosixMap,
    removals_running: usize,
}

impl Model {
    fn new() -> Self {
        let mut table = LockTable::new(Config::default());
        for client in 1..=CLIENTS {
            table.client_connected(ClientId(client), 100_000);
        }
        Self {
            table,
            next: 0,
            pending: Vec::new(),
            inodelks: Vec::new(),
            entrylks: Vec::new(),
            posix: PosixMap::new(),
            removals_running: 0,
        }
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        self.next += 1;
        self.pending.push((Ticket(self.next), asked));
        Ticket(self.next)
    }

    fn apply(&mut self, event: Event) {
        let now = Duration::ZERO;
        let wait = |wait| if wait { OnConflict::Wait } else { OnConflict::Fail };
        let actions = match event {
            Event::Inodelk { client, owner, write, start, len, wait: waits } => {
                let kind = if write { LockType::Write } else { LockType::Read };
                let request = inodelk(client, owner, kind, start, len);
                let ticket = self.ask(Asked::Inodelk(request.clone()));
                self.table.handle_inodelk(request, wait(waits), ticket, now)
            }
            Event::InodelkUnlock { nth } => {
                if self.inodelks.is_empty() {
                    return;
                }
                // The newest equal lock goes, as in the table: which one does not matter to conflicts of one owner.
                let held = self.inodelks[nth % self.inodelks.len()].clone();
                let at = self.inodelks.iter().rposition(|lock| same_place(lock, &held)).unwrap();
                self.inodelks.remove(at);
                let ticket = self.ask(Asked::Unlock);
                let flock = Flock { kind: LockType::Unlock, ..held.flock.clone() };
                self.table.handle_inodelk(Inodelk { flock, ..held }, OnConflict::Fail, ticket, now)
            }
            Event::Entrylk { client, owner, name, wait: waits } => {
                let request = entrylk(client, owner, name);
                let ticket = self.ask(Asked::Entrylk(request.clone()));
                self.table.handle_entrylk(request, wait(waits), ticket, now)
            }
            Event::EntrylkUnlock { nth } => {
                if self.entrylks.is_empty() {
                    return;
                }
                let held = self.entrylks.remove(nth % self.entrylks.len());
                let ticket = self.ask(Asked::Unlock);
                self.table.handle_entrylk_unlock(held, ticket, now)
            }
            Event::Posixlk { client, owner, kind, start, len, wait: waits } => {
                let kind = LockType::from_raw(kind.into()).unwrap();
                let request = posixlk(client, owner, kind, start, len);
                // A waiter gives its own range back at once, a failing request must not change anything.
                let conflict = kind != LockType::Unlock && self.posix_conflicts(&request);
                if conflict && waits {
                    self.posix_set(&request, None);
                }
                let ticket = self.ask(Asked::Posixlk(request.clone()));
                self.table.handle_posixlk(request, wait(waits), ticket, now)
            }
            Event::Flush { client, owner } => {
                let caller = caller(client, owner);
                self.posix.retain(|(holder, _), _| *holder != caller.holder);
                self.table.handle_flush(FILE, &caller, now)
            }
            Event::Removal { client } => {
                let ticket = self.ask(Asked::Removal(ClientId(client)));
                self.table.handle_removal_begin(FILE, ClientId(client), ticket, now)
            }
            Event::RemovalEnd => {
                if self.removals_running == 0 {
                    return;
                }
                self.removals_running -= 1;
                self.table.handle_removal_end(FILE, now)
            }
            Event::Cancel { nth } => {
                if self.pending.is_empty() {
                    return;
                }
                let (ticket, _) = self.pending.remove(nth % self.pending.len());
                self.table.cancel(FILE, ticket, now)
            }
            Event::Gone { client } => {
                self.forget(ClientId(client));
                let actions = self.table.client_gone(ClientId(client), now);
                self.table.client_connected(ClientId(client), 100_000);
                actions
            }
        };
        self.carry_out(actions);
        self.check();
    }

    fn forget(&mut self, client: ClientId) {
        self.inodelks.retain(|lock| lock.caller.holder.client != client);
        self.entrylks.retain(|lock| lock.caller.holder.client != client);
        self.posix.retain(|(holder, _), _| holder.client != client);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Grant(ticket) => match self.take(ticket) {
                    Asked::Inodelk(lock) => {
                        let bars = self.removals_running > 0 && !lock.caller.pid.is_internal();
                        assert!(!bars, "granted while a removal runs");
                        self.inodelks.push(lock);
                    }
                    Asked::Entrylk(lock) => self.entrylks.push(lock),
                    Asked::Posixlk(lock) => {
                        let mode = (lock.flock.kind != LockType::Unlock).then_some(lock.flock.kind == LockType::Write);
                        self.posix_set(&lock, mode);
                    }
                    Asked::Removal(client) => {
                        assert!(self.inodelks.iter().all(|lock| lock.caller.holder.client == client));
                        self.removals_running += 1;
                    }
                    Asked::Unlock => {}
                },
                Action::Deny(ticket, _) => {
                    assert!(!matches!(self.take(ticket), Asked::Unlock), "what is held can be given back");
                }
                Action::Notify { .. } => {}
            }
        }
    }

    fn take(&mut self, ticket: Ticket) -> Asked {
        let at = self.pending.iter().position(|(known, _)| *known == ticket).expect("answered once");
        self.pending.remove(at).1
    }

    fn posix_set(&mut self, request: &Posixlk, mode: Option<bool>) {
        for byte in bytes_of(&request.flock) {
            let key = (request.caller.holder.clone(), byte);
            match mode {
                Some(write) => self.posix.insert(key, write),
                None => self.posix.remove(&key),
            };
        }
    }

    fn posix_conflicts(&self, request: &Posixlk) -> bool {
        let write = request.flock.kind == LockType::Write;
        let bytes: HashSet<u64> = bytes_of(&request.flock).collect();
        self.posix
            .iter()
            .any(|((holder, byte), held)| *holder != request.caller.holder && bytes.contains(byte) && (write || *held))
    }

    /// The invariants.
    fn check(&self) {
        for (at, one) in self.inodelks.iter().enumerate() {
            assert!(self.inodelks[..at].iter().all(|two| !inodelks_conflict(one, two)), "two conflicting inodelks");
        }
        for (at, one) in self.entrylks.iter().enumerate() {
            assert!(self.entrylks[..at].iter().all(|two| !entrylks_conflict(one, two)), "two conflicting entrylks");
        }
        for ((holder, byte), write) in &self.posix {
            let clash = self.posix.iter().any(|((other, at), w)| other != holder && at == byte && (*write || *w));
            assert!(!clash, "two conflicting posix locks");
        }
        self.check_waiters();
    }

    /// The oldest waiter of a kind has somebody in its way; a POSIX waiter always has.
    fn check_waiters(&self) {
        let mut inodelk_seen = false;
        let mut entrylk_seen = false;
        let removal = self.removals_running > 0 || self.pending.iter().any(|(_, a)| matches!(a, Asked::Removal(_)));
        for (ticket, asked) in &self.pending {
            match asked {
                Asked::Inodelk(lock) if !std::mem::replace(&mut inodelk_seen, true) => {
                    let blocked = removal || self.inodelks.iter().any(|held| inodelks_conflict(held, lock));
                    assert!(blocked, "lost inodelk waiter {ticket:?}");
                }
                Asked::Entrylk(lock) if !std::mem::replace(&mut entrylk_seen, true) => {
                    let blocked = self.entrylks.iter().any(|held| entrylks_conflict(held, lock));
                    assert!(blocked, "lost entrylk waiter {ticket:?}");
                }
                Asked::Posixlk(lock) => assert!(self.posix_conflicts(lock), "lost posix waiter {ticket:?}"),
                Asked::Removal(client) => {
                    let blocked = self.inodelks.iter().any(|held| held.caller.holder.client != *client);
                    assert!(blocked, "lost removal {ticket:?}");
                }
                _ => {}
            }
        }
    }
}

fn caller(client: u64, owner: u64) -> Caller {
    Caller { holder: Holder { client: ClientId(client), owner: LkOwner::from_u64(owner) }, pid: Pid(1) }
}

fn flock(kind: LockType, start: u64, len: u64) -> Flock {
    Flock { kind, whence: 0, start, len, pid: 0, owner: LkOwner::default() }
}

fn inodelk(client: u64, owner: u64, kind: LockType, start: u64, len: u64) -> Inodelk {
    let domain = Bytes::from_static(b"d");
    Inodelk { gfid: FILE, caller: caller(client, owner), domain, flock: flock(kind, start, len) }
}

fn entrylk(client: u64, owner: u64, name: Option<u8>) -> Entrylk {
    let name = name.map(|byte| Bytes::copy_from_slice(&[b'a' + byte]));
    let domain = Bytes::from_static(b"d");
    Entrylk { gfid: FILE, caller: caller(client, owner), domain, name, kind: EntrylkType::Write }
}

fn posixlk(client: u64, owner: u64, kind: LockType, start: u64, len: u64) -> Posixlk {
    Posixlk { gfid: FILE, caller: caller(client, owner), fd: Fd(0), flock: flock(kind, start, len) }
}

/// The bytes of the small world that a lock covers; one beyond stands for all the rest of the file.
fn bytes_of(flock: &Flock) -> std::ops::Range<u64> {
    let end = if flock.len == 0 { 2 * BYTES + 1 } else { flock.start + flock.len };
    flock.start..end
}

fn same_place(one: &Inodelk, two: &Inodelk) -> bool {
    one.caller == two.caller && one.flock.start == two.flock.start && one.flock.len == two.flock.len
}

fn inodelks_conflict(one: &Inodelk, two: &Inodelk) -> bool {
    let (first, second) = (bytes_of(&one.flock), bytes_of(&two.flock));
    let overlap = first.start < second.end && second.start < first.end;
    let write = one.flock.kind == LockType::Write || two.flock.kind == LockType::Write;
    one.caller.holder != two.caller.holder && overlap && write
}

fn entrylks_conflict(one: &Entrylk, two: &Entrylk) -> bool {
    one.caller.holder != two.caller.holder && (one.name.is_none() || two.name.is_none() || one.name == two.name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn grants_never_conflict_and_no_waiter_is_lost(events in proptest::collection::vec(event(), 1..80)) {
        let mut model = Model::new();
        for event in events {
            model.apply(event);
        }
        for client in 1..=CLIENTS {
            model.apply(Event::Gone { client });
        }
        while model.removals_running > 0 {
            model.apply(Event::RemovalEnd);
        }
        prop_assert!(model.pending.is_empty(), "still waiting: {:?}", model.pending);
        prop_assert!(model.table.is_empty());
    }
}
