//! Every volfile that a real GlusterFS 10.3 generated is read, and printing it again loses nothing.

use mortar_wire::volfile::Volfile;

#[test]
fn real_volfiles_survive_parse_print_parse() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/volfiles");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let volfile = Volfile::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let printed = volfile.print().unwrap();
        assert_eq!(Volfile::parse(&printed), Ok(volfile), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} fixtures were found");
}

#[test]
fn what_glusterd_wrote_is_printed_byte_for_byte() {
    let text = include_str!("fixtures/volfiles/replica2.client.vol");
    assert_eq!(Volfile::parse(text).unwrap().print().unwrap(), text);
}
