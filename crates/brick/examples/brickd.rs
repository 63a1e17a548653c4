//! A brick process without the `mortar` binary: `brickd VOLFILE PORT [CONTROL-SOCKET]`.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use mortar_brick::run::{Options, run};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(volfile), Some(Ok(port))) = (words.next(), words.next().map(|word| word.parse())) else {
        eprintln!("usage: brickd VOLFILE PORT [CONTROL-SOCKET]");
        return ExitCode::FAILURE;
    };
    let listen = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let control = words.next().map(Into::into);
    match run(&Options { listen, port, control, ..Options::new(volfile) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("brickd: {error}");
            ExitCode::FAILURE
        }
    }
}
