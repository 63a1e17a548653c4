//! The daemon alone, for looking at it before or without the `mortar` binary:
//! `mortard DIR ADDRESS [EXECUTABLE]` keeps everything below DIR and starts bricks from EXECUTABLE.

use std::net::IpAddr;
use std::path::PathBuf;

use mortar_pool::{Options, run};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(listen)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mortard DIR ADDRESS [EXECUTABLE]".into());
    };
    let dir = PathBuf::from(dir);
    let listen: IpAddr = listen.parse()?;
    mortar_observe::init(None, mortar_observe::Level::Info)?;
    let options = Options {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        log_dir: dir.join("log"),
        listen,
        executable: arguments.next().map(PathBuf::from),
        ..Options::default()
    };
    run(options, || eprintln!("ready")).await?;
    Ok(())
}
