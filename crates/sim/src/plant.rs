//! Bugs planted on purpose, to show that the checkers find them. They live in the simulated connections only.

use mortar_types::fop::{AckReply, DictReply, LockType, WriteReply};
use mortar_types::{Iatt, Reply, Request};

/// A bug that every client of a simulation has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// Marks are not set before a change of contents: XATTROPs that raise counters are answered without being sent.
    DroppedPreOp,
    /// A write is answered before the brick has it.
    EarlyAcknowledgement,
    /// Inode locks are taken as granted without asking.
    SkippedLock,
}

impl Plant {
    pub const ALL: [Self; 3] = [Self::DroppedPreOp, Self::EarlyAcknowledgement, Self::SkippedLock];

    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "dropped-pre-op" => Self::DroppedPreOp,
            "early-acknowledgement" => Self::EarlyAcknowledgement,
            "skipped-lock" => Self::SkippedLock,
            _ => return None,
        })
    }

    /// The false answer, and whether the request is sent all the same.
    pub fn answer(self, request: &Request) -> Option<(Reply, bool)> {
        match (self, request) {
            (Self::DroppedPreOp, Request::Xattrop(r)) => {
                raises(r.dict.as_ref()).then(|| (counted(r.dict.clone()), false))
            }
            (Self::DroppedPreOp, Request::Fxattrop(r)) => {
                raises(r.dict.as_ref()).then(|| (counted(r.dict.clone()), false))
            }
            (Self::EarlyAcknowledgement, Request::Write(r)) => {
                let (pre, post) = (Iatt::default(), Iatt::default());
                Some((WriteReply { written: r.data.len() as u32, pre, post, xdata: None }.into(), true))
            }
            (Self::SkippedLock, Request::Inodelk(r)) if r.kind != LockType::Unlock => {
                Some((AckReply { xdata: None }.into(), false))
            }
            (Self::SkippedLock, Request::Finodelk(r)) if r.kind != LockType::Unlock => {
                Some((AckReply { xdata: None }.into(), false))
            }
            _ => None,
        }
    }
}

/// Whether a counter grows: small positive numbers, not the two's complement of a lowering.
fn raises(dict: Option<&mortar_types::Dict>) -> bool {
    let grows =
        |bytes: &[u8]| bytes.chunks(4).any(|word| word.first() == Some(&0) && word.iter().any(|byte| *byte != 0));
    dict.is_some_and(|dict| dict.iter().any(|(_, value)| value.as_bytes().is_some_and(|bytes| grows(bytes))))
}

fn counted(dict: Option<mortar_types::Dict>) -> Reply {
    DictReply { len: 0, dict, xdata: None }.into()
}
