//! Bricks for tests: in this process, or as a process of their own that can be killed.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mortar_brick::locks::Locks;
use mortar_brick::options::BrickOptions;
use mortar_brick::run::{Options, run};
use mortar_brick::server::{Brick, BrickService, Stack};
use mortar_brick::store::{Store, initialise};
use mortar_brick::upcall::CacheInvalidation;
use mortar_rpc::server::{Listener, Options as RpcOptions, Server};
use mortar_types::{Fops, Gfid};
use mortar_wire::volfile::{Volfile, VolfileVolume};

pub(crate) const VOLUME_ID: &str = "b7857191-63b2-4d58-baa1-ab87bf78b7dc";
/// Set for a test binary that is to be a brick: the volfile.
const BRICK_VARIABLE: &str = "MORTAR_TEST_BRICK_VOLFILE";

/// A directory that is a brick, removed at the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// `None`, with a word why, where bricks cannot be: not root, or no trusted.* xattrs.
    pub(crate) fn new(name: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mortar-server-{}-{name}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let directory = Self(path);
        match initialise(&directory.0, VOLUME_ID.parse().unwrap()) {
            Ok(()) => Some(directory),
            Err(error) => {
                mortar_testkit::needs::skip(&format!("no brick can be made in {}: {error}", directory.0.display()));
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn name(&self) -> String {
        self.0.display().to_string()
    }

    /// The volfile of this brick, with further options of the server and others.
    pub(crate) fn volfile(&self, options: &[(&str, &str, &str)]) -> Volfile {
        let posix = VolfileVolume::new("t-posix", "storage/posix")
            .with_option("directory", self.name())
            .with_option("volume-id", VOLUME_ID)
            .with_option("health-check-interval", 0);
        let layer = |name: &str, kind, below: &str| VolfileVolume::new(name, kind).with_subvolumes([below.to_owned()]);
        let mut volumes = vec![
            posix,
            layer("t-locks", "features/locks", "t-posix"),
            layer("t-read-only", "features/read-only", "t-locks"),
            layer("t-upcall", "features/upcall", "t-read-only"),
            layer(&self.name(), "debug/io-stats", "t-upcall"),
            layer("t-server", "protocol/server", &self.name()),
        ];
        let allow = (format!("auth.addr.{}.allow", self.name()), "*".to_owned());
        volumes[5].options.push(allow);
        for (kind, option, value) in options {
            let volume = volumes.iter_mut().find(|volume| volume.kind == *kind).unwrap();
            volume.options.push((option.replace("BRICK", &self.name()), (*value).to_owned()));
        }
        Volfile { volumes }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(self.0.with_extension("vol"));
    }
}

/// A brick in this process.
pub(crate) struct Local {
    pub(crate) address: SocketAddr,
    pub(crate) brick: Arc<Brick>,
    _server: Server,
}

impl Local {
    pub(crate) fn start(volfile: &Volfile) -> Self {
        let options = BrickOptions::from_volfile(volfile, Some(Gfid([3; 16]))).unwrap();
        let store: Arc<dyn Fops> = Store::open(options.store.clone()).unwrap();
        let locks = Locks::new(store, "host:/brick".to_owned(), &options.locks);
        let upcall = CacheInvalidation::new(Arc::clone(&locks) as Arc<dyn Fops>, options.upcall);
        let stack = Stack { top: Arc::clone(&upcall) as Arc<dyn Fops>, locks, upcall };
        let brick = Brick::new(options.name, options.store.volume_id, stack, options.server);
        let listener = Listener::bind_tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap();
        let address = listener.local_address().unwrap();
        let service = Arc::new(BrickService(Arc::clone(&brick)));
        Self { address, brick, _server: listener.serve(service, RpcOptions::default()) }
    }
}

/// A brick as a process: this test binary, started again as [`brick_process`].
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts it and waits until it serves.
    pub(crate) fn start(directory: &Directory) -> Self {
        let volfile = directory.path().with_extension("vol");
        std::fs::write(&volfile, directory.volfile(&[]).print().unwrap()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "brick::brick_process", "--nocapture", "--test-threads=1"])
            .env(BRICK_VARIABLE, &volfile)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let port = output
            .lines()
            .map_while(Result::ok)
            // The harness writes the test's name before it, on the same line.
            .find_map(|line| line.split_once("ready ")?.1.trim().parse().ok())
            .expect("the brick says its port");
        Self { child, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port) }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: the brick of [`Process`].
#[test]
fn brick_process() {
    let Some(volfile) = std::env::var_os(BRICK_VARIABLE) else { return };
    let listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
    run(&Options { listen, ..Options::new(volfile) }).unwrap();
}
