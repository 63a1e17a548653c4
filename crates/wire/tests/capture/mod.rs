//! RPC records out of a packet capture: pcap file, Ethernet, IPv4, TCP, record marking. Just enough for our fixtures.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::{Buf, Bytes};

/// One direction of a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Flow {
    pub(crate) source: ([u8; 4], u16),
    pub(crate) target: ([u8; 4], u16),
}

impl Flow {
    pub(crate) fn reversed(self) -> Self {
        Self { source: self.target, target: self.source }
    }
}

/// A whole record without its record mark.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) flow: Flow,
    pub(crate) bytes: Bytes,
}

struct Segment {
    flow: Flow,
    sequence: u32,
    starts: bool,
    payload: Bytes,
}

#[derive(Default)]
struct Stream {
    next: Option<u32>,
    /// Bytes in order that do not yet fill a record.
    ready: Vec<u8>,
    /// Segments that came too early, by their distance from the stream's start.
    early: BTreeMap<u32, Bytes>,
}

/// All records of a capture, in the order in which they became whole, and the bytes that never became one.
pub(crate) fn records(file: &Path) -> (Vec<Record>, usize) {
    let mut streams: HashMap<Flow, Stream> = HashMap::new();
    let mut records = Vec::new();
    for frame in frames(Bytes::from(std::fs::read(file).unwrap())) {
        let Some(segment) = segment(frame) else { continue };
        let flow = segment.flow;
        let stream = streams.entry(flow).or_default();
        stream.add(segment);
        while let Some(bytes) = stream.take_record() {
            records.push(Record { flow, bytes });
        }
    }
    let left = streams.values().map(|stream| stream.ready.len() + stream.early.len()).sum();
    (records, left)
}

fn frames(mut pcap: Bytes) -> Vec<Bytes> {
    assert_eq!(pcap.get_u32_le(), 0xa1b2_c3d4, "a little-endian pcap file with microseconds");
    pcap.advance(16);
    assert_eq!(pcap.get_u32_le(), 1, "Ethernet frames");
    let mut frames = Vec::new();
    while pcap.remaining() >= 16 {
        pcap.advance(8);
        let captured = pcap.get_u32_le() as usize;
        let original = pcap.get_u32_le() as usize;
        assert_eq!(captured, original, "whole frames were captured");
        frames.push(pcap.split_to(captured));
    }
    frames
}

fn segment(mut frame: Bytes) -> Option<Segment> {
    frame.advance(12);
    if frame.get_u16() != 0x0800 {
        return None;
    }
    let header_bytes = usize::from(frame[0] & 0xf) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    if frame[9] != 6 {
        return None;
    }
    let address = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
    let (source, target) = (address(12), address(16));
    let mut tcp = frame.slice(header_bytes..total_bytes);
    let flags = tcp[13];
    let data_at = usize::from(tcp[12] >> 4) * 4;
    let payload = tcp.slice(data_at..);
    let flow = Flow { source: (source, tcp.get_u16()), target: (target, tcp.get_u16()) };
    Some(Segment { flow, sequence: tcp.get_u32(), starts: flags & 2 != 0, payload })
}

impl Stream {
    fn add(&mut self, segment: Segment) {
        if segment.starts {
            *self = Self { next: Some(segment.sequence.wrapping_add(1)), ..Self::default() };
            return;
        }
        if segment.payload.is_empty() {
            return;
        }
        self.next.get_or_insert(segment.sequence);
        self.early.insert(segment.sequence, segment.payload);
        loop {
            let next = self.next.expect("set above");
            // Sequence numbers wrap; a distance below half the range is "later".
            let Some((&sequence, _)) = self.early.iter().find(|(sequence, _)| next.wrapping_sub(**sequence) < 1 << 31)
            else {
                return;
            };
            let payload = self.early.remove(&sequence).expect("found above");
            let known = (next.wrapping_sub(sequence) as usize).min(payload.len());
            self.ready.extend_from_slice(&payload[known..]);
            self.next = Some(next.wrapping_add((payload.len() - known) as u32));
        }
    }

    fn take_record(&mut self) -> Option<Bytes> {
        let mut record = Vec::new();
        let mut at = 0;
        loop {
            let mark = u32::from_be_bytes(*self.ready.get(at..)?.first_chunk()?);
            let fragment = self.ready.get(at + 4..at + 4 + (mark & 0x7fff_ffff) as usize)?;
            record.extend_from_slice(fragment);
            at += 4 + fragment.len();
            if mark & 0x8000_0000 != 0 {
                break;
            }
        }
        self.ready.drain(..at);
        Some(record.into())
    }
}
