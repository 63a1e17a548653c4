//! What clients asked and heard, and whether a volume could have answered so.
//!
//! Every name, every block and every attribute is a register. A read (also the state at the end) may answer a write that
//! had begun before the read ended, unless another write was acknowledged that began after the first was acknowledged and
//! ended before the read began. A write whose outcome is unknown may come true at any time later.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mortar_types::Gfid;
use parking_lot::Mutex;

/// When a write of unknown outcome ended.
const NEVER: u64 = u64::MAX;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Register {
    /// What a name of a directory stands for.
    Name(Gfid, Bytes),
    /// Eight bytes of a file.
    Block(Gfid, u64),
    Mode(Gfid),
    /// `user.k`.
    Xattr(Gfid),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    Absent,
    Inode(Gfid),
    /// A rename of unknown outcome: whatever the old name stood for.
    AnyInode,
    Number(u64),
}

impl Value {
    fn matches(self, seen: Self) -> bool {
        self == seen || (self == Self::AnyInode && matches!(seen, Self::Inode(_)))
    }
}

#[derive(Clone, Debug)]
struct Access {
    value: Value,
    began: u64,
    ended: u64,
    who: String,
}

#[derive(Default)]
struct Accesses {
    writes: Vec<Access>,
    reads: Vec<Access>,
}

#[derive(Default)]
struct Inner {
    clock: u64,
    registers: BTreeMap<Register, Accesses>,
}

/// The history of one simulation.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Inner>>);

/// A write that has begun.
pub struct Begun {
    writes: Vec<(Register, usize)>,
}

impl History {
    /// The next moment: begins and ends of operations are in one order.
    pub fn tick(&self) -> u64 {
        let mut inner = self.0.lock();
        inner.clock += 1;
        inner.clock
    }

    /// Writes that may take effect from now on; unknown until [`Self::acknowledge`].
    pub fn begin(&self, who: &str, writes: Vec<(Register, Value)>) -> Begun {
        let began = self.tick();
        let mut inner = self.0.lock();
        let writes = writes
            .into_iter()
            .map(|(register, value)| {
                let accesses = inner.registers.entry(register.clone()).or_default();
                accesses.writes.push(Access { value, began, ended: NEVER, who: who.to_owned() });
                (register, accesses.writes.len() - 1)
            })
            .collect();
        Begun { writes }
    }

    /// They took effect, with these values where the answer told more.
    pub fn acknowledge(&self, begun: Begun, known: Option<Value>) {
        let ended = self.tick();
        let mut inner = self.0.lock();
        for (register, at) in begun.writes {
            if let Some(write) = inner.registers.get_mut(&register).and_then(|all| all.writes.get_mut(at)) {
                write.ended = ended;
                if let (Value::AnyInode, Some(value)) = (write.value, known) {
                    write.value = value;
                }
            }
        }
    }

    /// They were refused: they never take effect.
    pub fn refuse(&self, begun: Begun) {
        let mut inner = self.0.lock();
        for (register, at) in begun.writes {
            if let Some(write) = inner.registers.get_mut(&register).and_then(|all| all.writes.get_mut(at)) {
                // Before everything, with a value that nothing answers.
                (write.began, write.ended, write.value) = (NEVER, NEVER, Value::Absent);
            }
        }
    }

    pub fn read(&self, who: &str, register: Register, value: Value, began: u64) {
        let ended = self.tick();
        let mut inner = self.0.lock();
        let who = who.to_owned();
        inner.registers.entry(register).or_default().reads.push(Access { value, began, ended, who });
    }

    /// The first answer that no order of the operations explains.
    pub fn check(&self) -> Result<(), String> {
        let inner = self.0.lock();
        for (register, accesses) in &inner.registers {
            for read in &accesses.reads {
                if !is_explained(register, accesses, read) {
                    let mut text = format!(
                        "{register:?}: {} got {:?} [{}..{}]; writes:",
                        read.who, read.value, read.began, read.ended
                    );
                    for write in accesses.writes.iter().filter(|write| write.began != NEVER) {
                        let ended = if write.ended == NEVER { "?".to_owned() } else { write.ended.to_string() };
                        text.push_str(&format!(" {} {:?} [{}..{ended}]", write.who, write.value, write.began));
                    }
                    return Err(text);
                }
            }
        }
        Ok(())
    }
}

fn is_explained(register: &Register, accesses: &Accesses, read: &Access) -> bool {
    let initial = match register {
        Register::Name(..) => Value::Absent,
        Register::Block(..) | Register::Xattr(_) => Value::Number(0),
        Register::Mode(_) => Value::Number(0o644),
    };
    let initial = Access { value: initial, began: 0, ended: 0, who: String::new() };
    let candidates = accesses.writes.iter().chain([&initial]);
    let mut candidates = candidates.filter(|write| write.began < read.ended && write.value.matches(read.value));
    candidates.any(|write| {
        let is_superseded =
            |other: &Access| other.ended != NEVER && write.ended < other.began && other.ended < read.began;
        !accesses.writes.iter().any(is_superseded)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Register = Register::Block(Gfid::ROOT, 0);

    fn write(history: &History, number: u64) -> Begun {
        history.begin("w", vec![(BLOCK, Value::Number(number))])
    }

    #[test]
    fn an_overwritten_value_must_not_come_back_and_an_unknown_one_may() {
        let history = History::default();
        let first = write(&history, 1);
        history.acknowledge(first, None);
        let _unknown = write(&history, 2);
        let third = write(&history, 3);
        history.acknowledge(third, None);
        let now = history.tick();
        history.read("r", BLOCK, Value::Number(3), now);
        history.read("r", BLOCK, Value::Number(2), now);
        assert_eq!(history.check(), Ok(()));
        history.read("r", BLOCK, Value::Number(1), now);
        assert!(history.check().is_err());
    }

    #[test]
    fn a_read_beside_a_write_may_answer_either() {
        let history = History::default();
        let first = write(&history, 1);
        history.acknowledge(first, None);
        let second = write(&history, 2);
        let began = history.tick();
        history.acknowledge(second, None);
        history.read("r", BLOCK, Value::Number(1), began);
        history.read("r", BLOCK, Value::Number(2), began);
        assert_eq!(history.check(), Ok(()));
        let began = history.tick();
        history.read("r", BLOCK, Value::Number(1), began);
        assert!(history.check().is_err());
    }

    #[test]
    fn a_refused_write_explains_nothing() {
        let history = History::default();
        let refused = write(&history, 1);
        history.refuse(refused);
        let began = history.tick();
        history.read("r", BLOCK, Value::Number(1), began);
        assert!(history.check().is_err());
    }
}
