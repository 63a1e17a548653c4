//! RCHECKSUM: what heal compares blocks by.

use mortar_sys::file;
use mortar_types::fop::{Rchecksum, RchecksumReply};
use mortar_types::keys::FIPS_RCHECKSUM;
use mortar_types::{Dict, Outcome, Value};
use sha2::{Digest, Sha256};

use super::brick::Brick;

impl Brick {
    pub(crate) fn rchecksum(&self, request: &Rchecksum) -> Outcome<RchecksumReply> {
        let open = self.file(request.gfid, request.fd)?;
        let data = file::read_at(open.fd(), request.offset, request.len.min(super::IO_BYTES_MAX) as usize)?;
        let strong = Sha256::digest(&data).to_vec();
        let xdata = Dict::new().with(FIPS_RCHECKSUM, Value::Int(1));
        Ok(RchecksumReply { flags: 1, weak: weak(&data), strong: strong.into(), xdata: Some(xdata) })
    }
}

/// Adler-32 begun at 0 rather than 1 (`libglusterfs/src/checksum.c: gf_rsync_weak_checksum` calls zlib's with 0).
pub(crate) fn weak(data: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    /// The most bytes whose sums fit 32 bits before they must be reduced (zlib's NMAX).
    const RUN: usize = 5552;
    let (mut sum, mut sum_of_sums) = (0_u32, 0_u32);
    for run in data.chunks(RUN) {
        for byte in run {
            sum += u32::from(*byte);
            sum_of_sums += sum;
        }
        sum %= MODULUS;
        sum_of_sums %= MODULUS;
    }
    sum | sum_of_sums << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weak_sum_is_adler_32_without_its_one() {
        assert_eq!(weak(b""), 0);
        assert_eq!(weak(&[1, 2, 3]), 6 | (1 + 3 + 6) << 16);
        // zlib: adler32(1, "Wikipedia") = 0x11e60398; the initial 1 adds 1 to the sum and 9 to the sum of sums.
        assert_eq!(weak(b"Wikipedia"), 0x11dd_0397);
        // A second implementation without any trick.
        let data = vec![0xff_u8; 20_000];
        let slow = data.iter().fold((0_u64, 0_u64), |(a, b), byte| {
            let a = (a + u64::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        assert_eq!(u64::from(weak(&data)), slow.0 | slow.1 << 16);
    }
}
