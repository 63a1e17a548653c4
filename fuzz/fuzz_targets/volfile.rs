//! Volfile text.
#![no_main]

use libfuzzer_sys::fuzz_target;

use mortar_wire::volfile::Volfile;

fuzz_target!(|text: &str| {
    let Ok(volfile) = Volfile::parse(text) else { return };
    if let Ok(printed) = volfile.print() {
        assert_eq!(Volfile::parse(&printed).as_ref(), Ok(&volfile));
    }
});
