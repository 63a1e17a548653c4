//! One behaviour per test; the whole list of actions is compared.

use super::*;
use mortar_types::fop::LockType;

const FILE: Gfid = Gfid([7; 16]);
const EOF: u64 = 0;

struct Lab {
    table: LockTable,
    now: Duration,
    next: u64,
}

fn caller(client: u64, owner: u64) -> Caller {
    Caller { holder: Holder { client: ClientId(client), owner: LkOwner::from_u64(owner) }, pid: Pid(100) }
}

fn flock(kind: LockType, start: u64, len: u64) -> Flock {
    Flock { kind, whence: 0, start, len, pid: 0, owner: LkOwner::default() }
}

fn grant(ticket: u64) -> Action {
    Action::Grant(Ticket(ticket))
}

fn deny(ticket: u64, errno: Errno) -> Action {
    Action::Deny(Ticket(ticket), errno)
}

/// The notice that `client`'s whole-file write lock is wanted.
fn wanted(client: u64) -> Action {
    let flock = flock(LockType::Write, 0, EOF);
    let domain = Bytes::from_static(b"dom");
    Action::Notify { client: ClientId(client), contention: Contention::Inodelk { gfid: FILE, flock, domain } }
}

impl Lab {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let mut table = LockTable::new(config);
        for client in 1..=4 {
            table.client_connected(ClientId(client), 100_000);
        }
        Self { table, now: Duration::ZERO, next: 0 }
    }

    fn quiet() -> Self {
        Self::with(Config { notify_contention: false, ..Config::default() })
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn inodelk(&mut self, caller: Caller, flock: Flock, on_conflict: OnConflict) -> Vec<Action> {
        let ticket = self.ticket();
        let request = Inodelk { gfid: FILE, caller, domain: Bytes::from_static(b"dom"), flock };
        self.table.handle_inodelk(request, on_conflict, ticket, self.now)
    }

    fn wrlock(&mut self, client: u64) -> Vec<Action> {
        self.inodelk(caller(client, 1), flock(LockType::Write, 0, EOF), OnConflict::Wait)
    }

    fn unlock(&mut self, client: u64) -> Vec<Action> {
        self.inodelk(caller(client, 1), flock(LockType::Unlock, 0, EOF), OnConflict::Fail)
    }

    fn entrylk(&mut self, client: u64, name: Option<&'static str>) -> Vec<Action> {
        let ticket = self.ticket();
        self.table.handle_entrylk(entry(client, name), OnConflict::Wait, ticket, self.now)
    }

    fn entry_unlock(&mut self, client: u64, name: Option<&'static str>) -> Vec<Action> {
        let ticket = self.ticket();
        self.table.handle_entrylk_unlock(entry(client, name), ticket, self.now)
    }

    fn posixlk(&mut self, owner: u64, flock: Flock, on_conflict: OnConflict) -> Vec<Action> {
        let ticket = self.ticket();
        self.table.handle_posixlk(posix(owner, flock), on_conflict, ticket, self.now)
    }

    fn remove(&mut self, client: u64) -> Vec<Action> {
        let ticket = self.ticket();
        self.table.handle_removal_begin(FILE, ClientId(client), ticket, self.now)
    }
}

fn entry(client: u64, name: Option<&'static str>) -> Entrylk {
    let name = name.map(|name| Bytes::from_static(name.as_bytes()));
    Entrylk {
        gfid: FILE,
        caller: caller(client, 1),
        domain: Bytes::from_static(b"dom"),
        name,
        kind: EntrylkType::Write,
    }
}

fn posix(owner: u64, flock: Flock) -> Posixlk {
    Posixlk { gfid: FILE, caller: caller(1, owner), fd: Fd(owner as i64), flock }
}

#[test]
fn a_second_writer_waits_and_the_holder_is_told() {
    let mut lab = Lab::new();
    assert_eq!(lab.wrlock(1), [grant(1)]);
    assert_eq!(lab.wrlock(2), [wanted(1)]);
    assert_eq!(lab.unlock(1), [grant(3), grant(2)]);
}

#[test]
fn a_holder_is_told_once_in_five_seconds_also_for_requests_that_fail() {
    let mut lab = Lab::new();
    lab.wrlock(1);
    let write = || flock(LockType::Write, 0, EOF);
    assert_eq!(lab.inodelk(caller(2, 1), write(), OnConflict::Fail), [wanted(1), deny(2, Errno::EAGAIN)]);
    lab.now = Duration::from_millis(4999);
    assert_eq!(lab.inodelk(caller(2, 1), write(), OnConflict::Fail), [deny(3, Errno::EAGAIN)]);
    lab.now = Duration::from_secs(5);
    assert_eq!(lab.inodelk(caller(2, 1), write(), OnConflict::Fail), [wanted(1), deny(4, Errno::EAGAIN)]);
}

#[test]
fn a_new_holder_is_told_of_those_who_still_wait() {
    let mut lab = Lab::new();
    lab.wrlock(1);
    lab.wrlock(2);
    assert_eq!(lab.wrlock(3), []);
    assert_eq!(lab.unlock(1), [grant(4), grant(2), wanted(2)]);
}

#[test]
fn readers_share_and_a_waiting_writer_is_not_starved_by_new_readers() {
    let mut lab = Lab::quiet();
    let read = || flock(LockType::Read, 0, EOF);
    assert_eq!(lab.inodelk(caller(1, 1), read(), OnConflict::Wait), [grant(1)]);
    assert_eq!(lab.inodelk(caller(2, 1), read(), OnConflict::Wait), [grant(2)]);
    assert_eq!(lab.wrlock(3), []);
    assert_eq!(lab.inodelk(caller(4, 1), read(), OnConflict::Fail), [deny(4, Errno::EAGAIN)]);
    assert_eq!(lab.inodelk(caller(4, 2), read(), OnConflict::Wait), []);
    // A holder may nest, or it would wait for itself.
    assert_eq!(lab.inodelk(caller(2, 1), read(), OnConflict::Wait), [grant(6)]);
}

#[test]
fn an_owner_stacks_locks_and_unlocks_each() {
    let mut lab = Lab::quiet();
    assert_eq!(lab.wrlock(1), [grant(1)]);
    assert_eq!(lab.wrlock(1), [grant(2)]);
    assert_eq!(lab.unlock(1), [grant(3)]);
    assert_eq!(lab.wrlock(2), []);
    assert_eq!(lab.unlock(1), [grant(5), grant(4)]);
}

#[test]
fn an_unlock_must_name_the_exact_range_and_owner() {
    let mut lab = Lab::quiet();
    lab.wrlock(1);
    let part = flock(LockType::Unlock, 0, 10);
    assert_eq!(lab.inodelk(caller(1, 1), part, OnConflict::Fail), [deny(2, Errno::EINVAL)]);
    let whole = || flock(LockType::Unlock, 0, EOF);
    assert_eq!(lab.inodelk(caller(1, 2), whole(), OnConflict::Fail), [deny(3, Errno::EINVAL)]);
    assert_eq!(lab.inodelk(caller(2, 1), whole(), OnConflict::Fail), [deny(4, Errno::EINVAL)]);
}

#[test]
fn metadata_and_data_locks_of_one_domain_do_not_meet() {
    let mut lab = Lab::quiet();
    lab.wrlock(1);
    let metadata = |kind| flock(kind, METADATA, EOF);
    const METADATA: u64 = i64::MAX as u64 - 1;
    assert_eq!(lab.inodelk(caller(2, 1), metadata(LockType::Write), OnConflict::Fail), [grant(2)]);
    assert_eq!(lab.table.inodelk_count(FILE, Some(b"dom")), 1);
    assert_eq!(lab.table.inodelk_count(FILE, Some(b"dom:metadata")), 1);
    assert_eq!(lab.table.inodelk_count(FILE, None), 2);
    assert_eq!(lab.inodelk(caller(2, 1), metadata(LockType::Unlock), OnConflict::Fail), [grant(3)]);
}

#[test]
fn empty_owners_and_unknown_clients_are_refused() {
    let mut lab = Lab::new();
    let write = || flock(LockType::Write, 0, EOF);
    assert_eq!(lab.inodelk(caller(1, 0), write(), OnConflict::Wait), [deny(1, Errno::EINVAL)]);
    assert_eq!(lab.inodelk(caller(9, 1), write(), OnConflict::Wait), [deny(2, Errno::ENOTCONN)]);
    lab.table.client_connected(ClientId(9), 40_000);
    assert_eq!(lab.inodelk(caller(9, 0), write(), OnConflict::Wait), [grant(3)]);
}

#[test]
fn names_conflict_with_themselves_and_with_the_whole_directory() {
    let mut lab = Lab::quiet();
    assert_eq!(lab.entrylk(1, Some("a")), [grant(1)]);
    assert_eq!(lab.entrylk(2, Some("b")), [grant(2)]);
    assert_eq!(lab.entrylk(2, Some("a")), []);
    assert_eq!(lab.entrylk(3, None), []);
    assert!(lab.table.is_name_locked(FILE, b"a") && !lab.table.is_name_locked(FILE, b"c"));
    assert_eq!(lab.table.entrylk_count(FILE), 4);
    assert_eq!(lab.entry_unlock(1, Some("a")), [grant(5), grant(3)]);
    assert_eq!(lab.entry_unlock(2, Some("a")), [grant(6)]);
    assert_eq!(lab.entry_unlock(2, Some("b")), [grant(7), grant(4)]);
    assert_eq!(lab.entry_unlock(3, Some("a")), [deny(8, Errno::EINVAL)]);
}

#[test]
fn a_whole_directory_waiter_holds_back_new_names_but_not_its_nested_ones() {
    let mut lab = Lab::quiet();
    lab.entrylk(1, Some("a"));
    lab.entrylk(2, None);
    assert_eq!(lab.entrylk(3, Some("b")), []);
    assert_eq!(lab.entrylk(1, None), [grant(4)]);
}

#[test]
fn an_entry_holder_is_told() {
    let mut lab = Lab::new();
    lab.entrylk(1, Some("a"));
    let notice = Action::Notify {
        client: ClientId(1),
        contention: Contention::Entrylk {
            gfid: FILE,
            kind: EntrylkType::Write,
            name: Some(Bytes::from_static(b"a")),
            domain: Bytes::from_static(b"dom"),
            pid: Pid(100),
        },
    };
    assert_eq!(lab.entrylk(2, Some("a")), [notice]);
}

#[test]
fn a_client_that_goes_frees_its_locks_and_loses_its_place() {
    let mut lab = Lab::quiet();
    lab.wrlock(1);
    lab.wrlock(2);
    lab.wrlock(3);
    lab.entrylk(1, None);
    assert_eq!(lab.table.client_gone(ClientId(2), lab.now), [deny(2, Errno::EAGAIN)]);
    assert_eq!(lab.table.client_gone(ClientId(1), lab.now), [grant(3)]);
    assert_eq!(lab.table.client_gone(ClientId(3), lab.now), []);
    assert!(lab.table.is_empty());
    assert_eq!(lab.wrlock(1), [deny(5, Errno::ENOTCONN)]);
}

#[test]
fn a_cancelled_waiter_lets_those_behind_it_pass() {
    let mut lab = Lab::quiet();
    let read = || flock(LockType::Read, 0, EOF);
    lab.inodelk(caller(1, 1), read(), OnConflict::Wait);
    lab.wrlock(2);
    assert_eq!(lab.inodelk(caller(3, 1), read(), OnConflict::Wait), []);
    assert_eq!(lab.table.cancel(FILE, Ticket(2), lab.now), [grant(3)]);
}

#[test]
fn waiting_has_a_bound() {
    let mut lab = Lab::with(Config { waiting_per_inode_max: 1, notify_contention: false, ..Config::default() });
    lab.wrlock(1);
    assert_eq!(lab.wrlock(2), []);
    assert_eq!(lab.wrlock(3), [deny(3, Errno::ENOLCK)]);
}

#[test]
fn holding_has_a_bound() {
    let mut lab = Lab::with(Config { granted_per_inode_max: 1, ..Config::default() });
    lab.wrlock(1);
    assert_eq!(lab.wrlock(1), [deny(2, Errno::ENOLCK)]);
    assert_eq!(lab.posixlk(1, flock(LockType::Read, 0, 1), OnConflict::Wait), [deny(3, Errno::ENOLCK)]);
    assert_eq!(lab.unlock(1), [grant(4)]);
}

#[test]
fn a_removal_waits_for_other_clients_inodelks() {
    let mut lab = Lab::new();
    lab.wrlock(1);
    assert_eq!(lab.remove(2), [wanted(1)]);
    assert_eq!(lab.unlock(1), [grant(3), grant(2)]);
    // While it runs, nobody gets an inodelk, not even the remover.
    assert_eq!(lab.wrlock(2), []);
    assert_eq!(lab.inodelk(caller(1, 1), flock(LockType::Read, 0, 1), OnConflict::Fail), [deny(5, Errno::EAGAIN)]);
    assert_eq!(lab.table.handle_removal_end(FILE, lab.now), [grant(4)]);
}

#[test]
fn a_waiting_removal_lets_holders_nest_and_holds_back_others() {
    let mut lab = Lab::quiet();
    lab.wrlock(1);
    lab.remove(2);
    assert_eq!(lab.inodelk(caller(1, 2), flock(LockType::Write, METADATA, EOF), OnConflict::Wait), [grant(3)]);
    const METADATA: u64 = i64::MAX as u64 - 1;
    let reader = flock(LockType::Write, METADATA, EOF);
    assert_eq!(lab.inodelk(caller(3, 1), reader, OnConflict::Fail), [deny(4, Errno::EAGAIN)]);
}

#[test]
fn removals_and_internal_callers_pass_each_other() {
    let mut lab = Lab::quiet();
    let healer = |client| Caller { pid: Pid::SELF_HEAL_DAEMON, ..caller(client, 1) };
    lab.inodelk(healer(1), flock(LockType::Write, 0, 1), OnConflict::Wait);
    assert_eq!(lab.remove(2), [grant(2)]);
    assert_eq!(lab.inodelk(healer(1), flock(LockType::Write, 5, 1), OnConflict::Wait), [grant(3)]);
}

#[test]
fn the_remover_itself_may_hold_the_lock() {
    let mut lab = Lab::quiet();
    lab.wrlock(1);
    assert_eq!(lab.remove(1), [grant(2)]);
    assert_eq!(lab.table.handle_removal_end(FILE, lab.now), []);
    lab.unlock(1);
    assert!(lab.table.is_empty());
}

#[test]
fn posix_ranges_of_an_owner_merge_split_and_convert() {
    let mut lab = Lab::quiet();
    assert_eq!(lab.posixlk(1, flock(LockType::Write, 0, 100), OnConflict::Fail), [grant(1)]);
    assert_eq!(lab.posixlk(1, flock(LockType::Write, 50, 100), OnConflict::Fail), [grant(2)]);
    assert_eq!(lab.table.posixlk_count(FILE), 1);
    assert_eq!(lab.posixlk(1, flock(LockType::Unlock, 20, 10), OnConflict::Fail), [grant(3)]);
    assert_eq!(lab.table.posixlk_count(FILE), 2);
    assert_eq!(lab.posixlk(1, flock(LockType::Read, 100, EOF), OnConflict::Fail), [grant(4)]);
    let asked = |start, len| lab.table.posix_conflict(posix(2, flock(LockType::Read, start, len)));
    let holder = LkOwner::from_u64(1);
    let held = |start, len| Ok(Some(Flock { owner: holder.clone(), ..flock(LockType::Write, start, len) }));
    assert_eq!(asked(0, EOF), held(0, 20));
    assert_eq!(asked(20, 10), Ok(None));
    assert_eq!(asked(30, 500), held(30, 70));
    assert_eq!(asked(100, EOF), Ok(None));
}

#[test]
fn posix_waiters_are_granted_when_the_range_is_free() {
    let mut lab = Lab::quiet();
    lab.posixlk(1, flock(LockType::Write, 0, 10), OnConflict::Fail);
    assert_eq!(lab.posixlk(2, flock(LockType::Read, 5, 10), OnConflict::Fail), [deny(2, Errno::EAGAIN)]);
    assert_eq!(lab.posixlk(2, flock(LockType::Read, 5, 10), OnConflict::Wait), []);
    assert_eq!(lab.posixlk(1, flock(LockType::Unlock, 0, 5), OnConflict::Fail), [grant(4)]);
    assert_eq!(lab.posixlk(1, flock(LockType::Unlock, 5, 5), OnConflict::Fail), [grant(5), grant(3)]);
}

#[test]
fn two_upgraders_do_not_wait_for_each_other_for_ever() {
    let mut lab = Lab::quiet();
    lab.posixlk(1, flock(LockType::Read, 0, EOF), OnConflict::Fail);
    lab.posixlk(2, flock(LockType::Read, 0, EOF), OnConflict::Fail);
    assert_eq!(lab.posixlk(1, flock(LockType::Write, 0, EOF), OnConflict::Wait), []);
    assert_eq!(lab.posixlk(2, flock(LockType::Write, 0, EOF), OnConflict::Wait), [grant(4)]);
    assert_eq!(lab.posixlk(2, flock(LockType::Unlock, 0, EOF), OnConflict::Wait), [grant(5), grant(3)]);
}

#[test]
fn flush_drops_the_owners_locks_and_release_those_of_the_fd() {
    let mut lab = Lab::quiet();
    lab.posixlk(1, flock(LockType::Write, 0, 10), OnConflict::Fail);
    lab.posixlk(2, flock(LockType::Write, 20, 10), OnConflict::Fail);
    lab.posixlk(3, flock(LockType::Write, 0, EOF), OnConflict::Wait);
    assert_eq!(lab.table.handle_flush(FILE, &caller(1, 1), lab.now), []);
    assert_eq!(lab.table.handle_release(FILE, ClientId(1), Fd(2), lab.now), [grant(3)]);
}

#[test]
fn clearing_by_force_wakes_and_denies() {
    let mut lab = Lab::quiet();
    lab.wrlock(1);
    lab.wrlock(2);
    lab.wrlock(3);
    let command = |name: &str| ClearCommand::parse(name.as_bytes(), ClientId(1), Pid(1)).unwrap().unwrap();
    let (cleared, actions) = lab.table.handle_clear(FILE, &command("glusterfs.clrlk.tinode.kgranted"), lab.now);
    assert_eq!((cleared, actions), (Cleared { blocked: 0, granted: 1 }, vec![grant(2)]));
    let (cleared, actions) = lab.table.handle_clear(FILE, &command("glusterfs.clrlk.tinode.kall"), lab.now);
    assert_eq!((cleared, actions), (Cleared { blocked: 1, granted: 1 }, vec![deny(3, Errno::EAGAIN)]));
    let (cleared, _) = lab.table.handle_clear(FILE, &command("glusterfs.clrlk.tposix.kall"), lab.now);
    assert_eq!(cleared, Cleared::default());
}

#[test]
fn an_interrupt_ends_the_callers_own_wait() {
    let mut lab = Lab::quiet();
    lab.posixlk(1, flock(LockType::Write, 0, EOF), OnConflict::Fail);
    lab.posixlk(2, flock(LockType::Write, 0, EOF), OnConflict::Wait);
    let name = b"glusterfs.intrlk.tposix.kblocked";
    let other = ClearCommand::parse(name, ClientId(1), Pid(5)).unwrap().unwrap();
    assert_eq!(lab.table.handle_clear(FILE, &other, lab.now).1, []);
    let own = ClearCommand::parse(name, ClientId(1), Pid(100)).unwrap().unwrap();
    assert_eq!(lab.table.handle_clear(FILE, &own, lab.now).1, [deny(2, Errno::EINTR)]);
}
