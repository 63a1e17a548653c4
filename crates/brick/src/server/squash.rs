//! `server.root-squash` and `server.all-squash`: who callers become.

use mortar_types::{Context, Pid};

/// Whose ids are replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SquashWho {
    Nobody,
    Root,
    Everybody,
}

/// The rule and the ids that replace others (`server.anonuid`, `server.anongid`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Squash {
    pub who: SquashWho,
    pub uid: u32,
    pub gid: u32,
}

/// GlusterFS's GF_CLIENT_PID_NO_ROOT_SQUASH, for mounts with the option of that name.
const PID_NO_ROOT_SQUASH: Pid = Pid(-4);
/// Internal callers that are spared on connections that know the volume's password: gsyncd, rebalance, quota mount,
/// self-heal daemon (`server-helpers.c`, `RPC_SET_UID`…).
const PIDS_SPARED_IF_TRUSTED: [Pid; 4] = [Pid(-1), Pid::REBALANCE, Pid(-5), Pid::SELF_HEAL_DAEMON];

impl Squash {
    /// The user and group "nobody".
    pub const NOBODY: u32 = 65_534;

    pub const NONE: Self = Self { who: SquashWho::Nobody, uid: Self::NOBODY, gid: Self::NOBODY };

    /// Replaces the caller's ids where the rule says so.
    pub fn apply(&self, ctx: &mut Context, trusted: bool) {
        if ctx.pid == PID_NO_ROOT_SQUASH || (trusted && PIDS_SPARED_IF_TRUSTED.contains(&ctx.pid)) {
            return;
        }
        match self.who {
            SquashWho::Nobody => {}
            SquashWho::Root => {
                let root_to = |id: u32, other| if id == 0 { other } else { id };
                ctx.uid = root_to(ctx.uid, self.uid);
                ctx.gid = root_to(ctx.gid, self.gid);
                if ctx.groups.contains(&0) {
                    ctx.groups = ctx.groups.iter().map(|group| root_to(*group, self.gid)).collect();
                }
            }
            SquashWho::Everybody => {
                ctx.uid = self.uid;
                ctx.gid = self.gid;
                ctx.groups = Vec::new().into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squashed(who: SquashWho, pid: Pid, trusted: bool) -> (u32, u32, Vec<u32>) {
        let mut ctx = Context { pid, groups: vec![0, 7].into(), ..Context::default() };
        Squash { who, ..Squash::NONE }.apply(&mut ctx, trusted);
        (ctx.uid, ctx.gid, ctx.groups.to_vec())
    }

    #[test]
    fn root_becomes_nobody_and_others_stay() {
        assert_eq!(squashed(SquashWho::Nobody, Pid(1), false), (0, 0, vec![0, 7]));
        assert_eq!(squashed(SquashWho::Root, Pid(1), false), (65_534, 65_534, vec![65_534, 7]));
        assert_eq!(squashed(SquashWho::Everybody, Pid(1), false), (65_534, 65_534, vec![]));
    }

    #[test]
    fn heal_is_spared_when_it_knows_the_password() {
        assert_eq!(squashed(SquashWho::Root, Pid::SELF_HEAL_DAEMON, true).0, 0);
        assert_eq!(squashed(SquashWho::Root, Pid::SELF_HEAL_DAEMON, false).0, 65_534);
        assert_eq!(squashed(SquashWho::Everybody, PID_NO_ROOT_SQUASH, false).0, 0);
    }
}
