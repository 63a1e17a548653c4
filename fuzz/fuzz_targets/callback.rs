//! Callbacks: the first byte is the procedure, the rest the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use mortar_wire::callback::Callback;
use mortar_wire::xdr::Writer;

fuzz_target!(|data: &[u8]| {
    let Some((procedure, body)) = data.split_first() else { return };
    let Ok(callback) = Callback::decode(u32::from(*procedure), Bytes::copy_from_slice(body)) else { return };
    let mut out = Writer::new();
    callback.encode(&mut out);
    assert_eq!(Callback::decode(callback.procedure(), out.into_inner().freeze()), Ok(callback.clone()));
    if let Some(upcall) = callback.into_upcall() {
        let _ = Callback::from(upcall);
    }
});
