//! Which port each local brick listens on: asked by clients on 24007, filled by the supervisor and by bricks that sign
//! in themselves.

use std::collections::HashMap;

use mortar_types::ClientId;
use parking_lot::Mutex;

/// Where a brick is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registration {
    pub port: u16,
    pub pid: u32,
    /// The connection that signed in; its end ends the registration.
    pub by: Option<ClientId>,
}

/// By brick path, which is what clients ask for (`remote-subvolume`).
#[derive(Debug, Default)]
pub(crate) struct Portmap {
    bricks: Mutex<HashMap<String, Registration>>,
}

impl Portmap {
    pub(crate) fn register(&self, path: &str, registration: Registration) {
        self.bricks.lock().insert(path.to_owned(), registration);
    }

    /// Forgets a brick, unless another process has registered it meanwhile.
    pub(crate) fn forget(&self, path: &str, port: u16) {
        let mut bricks = self.bricks.lock();
        if bricks.get(path).is_some_and(|known| known.port == port) {
            bricks.remove(path);
        }
    }

    pub(crate) fn disconnected(&self, client: ClientId) {
        self.bricks.lock().retain(|_, known| known.by != Some(client));
    }

    pub(crate) fn port_of(&self, path: &str) -> Option<u16> {
        self.bricks.lock().get(path).map(|known| known.port)
    }

    pub(crate) fn brick_at(&self, port: u16) -> Option<String> {
        self.bricks.lock().iter().find(|(_, known)| known.port == port).map(|(path, _)| path.clone())
    }
}

#[cfg(test)]
mod tests {
    use mortar_types::ClientId;

    use super::{Portmap, Registration};

    #[test]
    fn bricks_come_and_go() {
        let map = Portmap::default();
        map.register("/b", Registration { port: 49152, pid: 1, by: None });
        map.register("/c", Registration { port: 49153, pid: 2, by: Some(ClientId(7)) });
        assert_eq!((map.port_of("/b"), map.brick_at(49153).as_deref()), (Some(49152), Some("/c")));
        map.disconnected(ClientId(7));
        assert_eq!(map.port_of("/c"), None);
        map.forget("/b", 1);
        assert_eq!(map.port_of("/b"), Some(49152), "another registration is not forgotten");
        map.forget("/b", 49152);
        assert_eq!(map.port_of("/b"), None);
    }
}
