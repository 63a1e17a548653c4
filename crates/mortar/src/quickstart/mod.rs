//! `mortar quickstart`: a whole cluster on this machine, to look at and to break.
//!
//! Two nodes on loopback addresses, each the ordinary daemon with folders of its own below one directory; volume `imap0`
//! with a brick on each; the volume mounted. Nothing here is special to the quickstart but the paths and addresses.

mod checks;
mod node;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use mortar_api::peer::{List, Probe};
use mortar_api::volume::{BrickRef, Create, Info, Layout, Start, State, Status};
use mortar_cli::grammar::Quickstart;

use self::node::Node;

const VOLUME: &str = "imap0";

/// Runs the quickstart until Ctrl-C, or cleans up after one.
pub(crate) async fn run(options: &Quickstart) -> Result<()> {
    let cluster = Cluster::new(&options.dir);
    checks::machine()?;
    if options.clean {
        cluster.stop();
        return cluster.remove();
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stopped);
    let started = tokio::select! {
        started = cluster.start() => started,
        () = &mut stopped => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = started {
        cluster.stop();
        return Err(error);
    }
    print!("{}", cluster.guide());
    std::io::stdout().flush()?;
    stopped.await;
    println!("\nStopping…");
    cluster.stop();
    println!(
        "All is stopped and unmounted. The data is kept in {}; run again to go on with it.",
        options.dir.display()
    );
    Ok(())
}

struct Cluster {
    dir: PathBuf,
    nodes: [Node; 2],
}

impl Cluster {
    fn new(dir: &Path) -> Self {
        let nodes = [1, 2].map(|number| Node::new(dir, number));
        Self { dir: dir.to_owned(), nodes }
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    async fn start(&self) -> Result<()> {
        std::fs::create_dir_all(self.mount_point())
            .with_context(|| format!("{} cannot be made; choose another --dir", self.dir.display()))?;
        for node in &self.nodes {
            node.start().await?;
        }
        let client = self.nodes[0].client();
        if client.call(&List {}).await?.peers.is_empty() {
            client.call(&Probe { host: self.nodes[1].address.to_string() }).await?;
        }
        self.start_volume().await?;
        self.mount()
    }

    async fn start_volume(&self) -> Result<()> {
        let client = self.nodes[0].client();
        let volumes = client.call(&Info { name: None }).await?.volumes;
        let state = volumes.iter().find(|volume| volume.name == VOLUME).map(|volume| volume.state);
        if state.is_none() {
            let brick =
                |node: &Node| BrickRef { host: node.address.to_string(), path: node.brick().display().to_string() };
            let bricks = self.nodes.iter().map(brick).collect();
            let layout = Layout::Replicate { replica: 2, arbiter: 0 };
            client.call(&Create { name: VOLUME.to_owned(), layout, bricks, force: true }).await?;
        }
        if state != Some(State::Started) {
            client.call(&Start { name: VOLUME.to_owned(), force: false }).await?;
        }
        self.wait_for_bricks().await
    }

    async fn wait_for_bricks(&self) -> Result<()> {
        let status = Status { name: Some(VOLUME.to_owned()), brick: None, detail: false, clients: false };
        for _ in 0..100 {
            let volumes = self.nodes[0].client().call(&status).await?;
            if volumes.iter().flat_map(|volume| &volume.processes).all(|process| process.online) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the bricks did not come up within 10 s; look at the logs below {}", self.dir.display())
    }

    fn mount(&self) -> Result<()> {
        let mount_point = self.mount_point();
        if checks::is_mounted(&mount_point)? {
            return Ok(());
        }
        let output = Command::new(std::env::current_exe()?)
            .args(["mount", &format!("{}:/{VOLUME}", self.nodes[0].address)])
            .arg(&mount_point)
            .args(["-o", &format!("log-file={}", self.dir.join("mount.log").display())])
            .output()?;
        if !output.status.success() {
            bail!("the volume was not mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Unmounts and ends every process. Best effort: what is gone already is fine.
    fn stop(&self) {
        let mount_point = self.mount_point();
        if checks::is_mounted(&mount_point).unwrap_or(false)
            && !Command::new("umount").arg(&mount_point).status().is_ok_and(|status| status.success())
        {
            eprintln!("{} is in use; it is detached now and gone when its last user is.", mount_point.display());
            let _ = Command::new("umount").arg("-l").arg(&mount_point).status();
        }
        for node in &self.nodes {
            node.stop();
        }
    }

    fn remove(&self) -> Result<()> {
        // Only what a quickstart made: a wrong --dir must not cost anybody's files.
        let known = ["node1", "node2", "mnt", "mount.log"];
        for name in known {
            let path = self.dir.join(name);
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = gone
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(error).with_context(|| format!("{} cannot be removed", path.display()));
            }
        }
        match std::fs::remove_dir(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                println!("{} is kept: it holds other files.", self.dir.display());
            }
            _ => println!("{} is removed.", self.dir.display()),
        }
        Ok(())
    }

    fn guide(&self) -> String {
        let [one, two] = &self.nodes;
        let mortar = std::env::current_exe().map_or_else(|_| "mortar".to_owned(), |path| path.display().to_string());
        format!(
            "
Mortar runs: volume {VOLUME}, two replicas, mounted on {mount}

  node 1   {address1}   brick {brick1}
  node 2   {address2}   brick {brick2}

Look inside (bricks are plain files):
  echo hello > {mount}/hello; cat {brick1}/hello {brick2}/hello
  {mortar} --socket={socket1} volume status

Break it: kill node 2, and go on writing
  kill -9 $(cat {run2}/*.pid {run2}/vols/*/*.pid)
  echo 'still here' > {mount}/while-away
  {mortar} --socket={socket1} volume heal {VOLUME} info

Watch it repair: start node 2 again
  {restart2}
  cat {brick2}/while-away

Ctrl-C stops and unmounts everything; the data stays.
",
            mount = self.mount_point().display(),
            address1 = one.address,
            address2 = two.address,
            brick1 = one.brick().display(),
            brick2 = two.brick().display(),
            socket1 = one.socket().display(),
            run2 = two.run_dir().display(),
            restart2 = two.command_line(&mortar),
        )
    }
}
