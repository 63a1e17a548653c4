//! Refuses changes (GlusterFS's `features/read-only`).

use std::sync::Arc;

use async_trait::async_trait;
use mortar_types::{Context, Errno, Fops, Outcome, Reply, Request, UpcallSink};

/// The bits of open flags that say how a file is accessed, and the one for reading only.
const ACCESS_MODE: u32 = 3;
const READ: u32 = 0;

pub struct ReadOnly {
    name: String,
    child: Arc<dyn Fops>,
}

impl ReadOnly {
    pub fn new(name: impl Into<String>, child: Arc<dyn Fops>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), child })
    }
}

#[async_trait]
impl Fops for ReadOnly {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        // Internal clients (heal, rebalance) go on (`read-only-common.c: is_readonly_or_worm_enabled`).
        if !ctx.pid.is_internal() && is_refused(&request) {
            return Err(Errno::EROFS.into());
        }
        self.child.call(ctx, request).await
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.child.subscribe(sink);
    }

    fn is_up(&self) -> bool {
        self.child.is_up()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn is_refused(request: &Request) -> bool {
    match request {
        Request::Open(open) => open.flags & ACCESS_MODE != READ,
        other => other.kind().is_change(),
    }
}

#[cfg(test)]
mod tests {
    use mortar_types::Gfid;
    use mortar_types::fop::{Open, Stat, Truncate};

    use super::*;

    #[test]
    fn only_changes_are_refused() {
        let gfid = Gfid::ROOT;
        assert!(is_refused(&Truncate { gfid, offset: 0, xdata: None }.into()));
        assert!(is_refused(&Open { gfid, flags: 2, xdata: None }.into()));
        assert!(!is_refused(&Open { gfid, flags: 0o100_000, xdata: None }.into()));
        assert!(!is_refused(&Stat { gfid, xdata: None }.into()));
    }
}
