//! A connection's bytes: record marks, RPC headers, credentials.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

use mortar_wire::auth;
use mortar_wire::header::Header;
use mortar_wire::record::Decoder;
use mortar_wire::xdr::Reader;

/// Bytes of a record: small, so that the limit is met too.
const LIMIT: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(LIMIT);
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(record)) = decoder.decode(&mut buffer) {
        assert!(record.len() <= LIMIT);
        let mut reader = Reader::new(record);
        if let Ok(Header::Call(call)) = Header::decode(&mut reader) {
            let _ = auth::decode(&call.credential);
        }
    }
    let _ = decoder.missing(&buffer);
});
