//! Every packet there and back, each byte in its place, and whatever else may come.

use proptest::prelude::*;

use super::*;

const ORDERED: Head = Head { credit: 0x0201, seq: Some(0x1413_1211), context: 0x2423_2221, tag: 0x3433_3231 };
const UNORDERED: Head = Head { credit: 0x0201, seq: None, context: 0x2423_2221, tag: 0x1413_1211_3433_3231 };
const KEY: Key = Key { base: 0x5857_5655_5453_5251, name: 0x6867_6665_6463_6261 };

/// Encodes what was parsed again.
fn encode(packet: &Packet<'_>) -> Vec<u8> {
    match packet {
        Packet::Eager { head, payload } => [&eager(head)[..], payload].concat(),
        Packet::Rts { head, offer } => rts(head, offer).to_vec(),
        Packet::Sync { head, sender, payload } => [&sync(head, *sender)[..], payload].concat(),
        Packet::Part { head, part: which, payload } => [&part(head, which)[..], payload].concat(),
        Packet::Data { credit, receiver, offset, payload } => {
            [&data(*credit, *receiver, *offset)[..], payload].concat()
        }
        Packet::Control { credit, control } => control.encode(*credit, &mut [0; CONTROL_BYTES_MAX]).to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One packet of every kind, with the bytes that docs/PROTOCOL.md promises.
fn golden() -> Vec<(Packet<'static>, &'static str)> {
    let control = |control| Packet::Control { credit: 0x0201, control };
    let offer = |mode| Offer { mode, bytes: 0x10, sender: 0x0807_0605_0403_0201, key: KEY };
    let (sender, receiver) = (0x0807_0605_0403_0201, 0x0f0e_0d0c_0b0a_0908);
    vec![
        (Packet::Eager { head: ORDERED, payload: b"hi" }, "0103010211121314212223243132333468 69"),
        (Packet::Eager { head: UNORDERED, payload: b"" }, "01130102111213142122232431323334"),
        (
            Packet::Rts { head: ORDERED, offer: offer(Mode::Window) },
            "02030102111213142122232431323334 1000000000000000 0102030405060708 5152535455565758 6162636465666768",
        ),
        (
            Packet::Rts { head: UNORDERED, offer: offer(Mode::Read) },
            "02330102111213142122232431323334 1000000000000000 0102030405060708 5152535455565758 6162636465666768",
        ),
        (
            Packet::Rts { head: ORDERED, offer: offer(Mode::Write) },
            "02430102111213142122232431323334 1000000000000000 0102030405060708 5152535455565758 6162636465666768",
        ),
        (
            Packet::Rts { head: ORDERED, offer: offer(Mode::Both) },
            "02630102111213142122232431323334 1000000000000000 0102030405060708 5152535455565758 6162636465666768",
        ),
        (
            control(Control::Cts { sender, receiver, wanted: 9, granted: 7 }),
            "0303010200000000 0102030405060708 08090a0b0c0d0e0f 0900000000000000 0700000000000000",
        ),
        (
            control(Control::CtsWrite { sender, receiver, offset: 5, bytes: 6, key: KEY }),
            "0403010200000000 0102030405060708 08090a0b0c0d0e0f 0500000000000000 0600000000000000 \
             5152535455565758 6162636465666768",
        ),
        (
            control(Control::Grant { sender, granted: 7 }),
            "0503010200000000 0102030405060708 0700000000000000",
        ),
        (
            Packet::Data { credit: 0x0201, receiver, offset: 3, payload: b"hi" },
            "0603010200000000 08090a0b0c0d0e0f 0300000000000000 6869",
        ),
        (control(Control::Fin { sender }), "0703010200000000 0102030405060708"),
        (control(Control::Written { receiver }), "0803010200000000 08090a0b0c0d0e0f"),
        (control(Control::Refused { receiver }), "0903010200000000 08090a0b0c0d0e0f"),
        (control(Control::Credit), "0a03010200000000"),
        (
            Packet::Part {
                head: ORDERED,
                part: Part { sender, bytes: 0x7473_7271, offset: 0x6463_6261 },
                payload: b"hi",
            },
            "0b030102111213142122232431323334 0102030405060708 7172737461626364 6869",
        ),
        (
            Packet::Sync { head: ORDERED, sender, payload: b"hi" },
            "0c030102111213142122232431323334 0102030405060708 6869",
        ),
    ]
}

#[test]
fn every_kind_of_packet_has_the_bytes_of_the_protocol_document() {
    for (packet, bytes) in golden() {
        assert_eq!(hex(&encode(&packet)), bytes.replace(' ', ""), "{packet:?}");
    }
}

#[test]
fn the_protocol_document_shows_the_same_bytes() {
    let document = include_str!("../../../../docs/PROTOCOL.md");
    let examples = document.split("## Examples").nth(1).expect("the document ends with examples");
    // A line is a name, two spaces or more, and the bytes.
    let lines = examples.lines().filter_map(|line| line.rsplit_once("  "));
    let shown: Vec<String> = lines.map(|(_, bytes)| bytes.replace(' ', "")).collect();
    let promised: Vec<String> = golden().iter().map(|(_, bytes)| bytes.replace(' ', "")).collect();
    assert_eq!(shown, promised);
}

#[test]
fn every_kind_of_packet_is_parsed_back() {
    for (packet, _) in golden() {
        assert_eq!(parse(&encode(&packet)), Ok(packet));
    }
}

#[test]
fn a_packet_cut_short_anywhere_is_refused_unless_only_payload_is_missing() {
    for (packet, _) in golden() {
        let bytes = encode(&packet);
        for len in 0..bytes.len() {
            match (parse(&bytes[..len]), &packet) {
                (Err(Malformed::Length { .. }), _) => {}
                (Ok(_), Packet::Eager { .. }) if len >= EAGER_HEADER_BYTES => {}
                (Ok(_), Packet::Data { .. }) if len > DATA_HEADER_BYTES => {}
                (Ok(_), Packet::Part { .. }) if len > PART_HEADER_BYTES => {}
                (Ok(_), Packet::Sync { .. }) if len >= SYNC_HEADER_BYTES => {}
                (other, _) => panic!("{len} bytes of {packet:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_packet_of_another_version_is_refused_as_such() {
    for (packet, _) in golden() {
        let mut bytes = encode(&packet);
        bytes[1] ^= 3;
        assert_eq!(parse(&bytes), Err(Malformed::Version(VERSION ^ 3)));
    }
}

#[test]
fn an_unknown_kind_and_reserved_bits_are_refused() {
    assert_eq!(parse(&[13, VERSION, 0, 0, 0, 0, 0, 0]), Err(Malformed::Kind(13)));
    assert_eq!(parse(&[10, VERSION, 0, 0, 0, 1, 0, 0]), Err(Malformed::Reserved { kind: 10 }));
    assert_eq!(parse(&[10, VERSION | 0x80, 0, 0, 0, 0, 0, 0]), Err(Malformed::Reserved { kind: 10 }));
    let mut bytes = eager(&ORDERED);
    bytes[1] |= 0x40;
    assert_eq!(parse(&bytes), Err(Malformed::Reserved { kind: 1 }));
    let mut bytes = [&part(&ORDERED, &Part { sender: 0, bytes: 1, offset: 0 })[..], &[0]].concat();
    bytes[1] |= 0x20;
    assert_eq!(parse(&bytes), Err(Malformed::Reserved { kind: 11 }));
    let mut bytes = sync(&ORDERED, 0);
    bytes[1] |= 0x40;
    assert_eq!(parse(&bytes), Err(Malformed::Reserved { kind: 12 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn random_bytes_never_panic_and_what_is_accepted_is_what_we_would_send(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Ok(packet) = parse(&bytes) {
            prop_assert_eq!(encode(&packet), bytes);
        }
    }

    #[test]
    fn mutated_packets_never_panic_and_what_is_accepted_is_what_we_would_send(
        which in 0..16_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
        extra in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = encode(&golden()[which].0);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 8).max(1));
        bytes.extend(extra);
        if let Ok(packet) = parse(&bytes) {
            prop_assert_eq!(encode(&packet), bytes);
        }
    }
}
