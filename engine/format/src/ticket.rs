//! Tickets: what one types on a second device to join a portal.
//!
//! `warp1`, and base32 of: version, kind, issuer, addresses, the seed of a key
//! that is good for this, and a checksum. Promises: a mistyped letter is
//! noticed; a ticket holds no secret of the portal, only the right to ask for
//! them while it is good. Never: shows its seed by `Debug`.
//! Tested by the unit tests below and fuzz target `ticket`.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::id::DeviceId;
use crate::keys::Secret;
use crate::limits::{MAX_TICKET_ADDRESSES, MAX_TICKET_LEN, VERSION, check_version};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;
use zeroize::Zeroizing;

const AT: &str = "ticket";
const PREFIX: &str = "warp1";
const KIND_INVITE: u8 = 0;
const CHECK_LEN: usize = 4;

/// Base32 in lower case without padding; upper case is read, too: a QR code of
/// it is smaller.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.translate.from.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    spec.translate.to.push_str("abcdefghijklmnopqrstuvwxyz");
    spec.encoding().expect("32 different symbols")
});

/// An invite, as it is passed on.
#[derive(Clone)]
pub struct Ticket {
    /// Who honours it.
    pub issuer: DeviceId,
    /// Where that device may be reached.
    pub addresses: Vec<SocketAddr>,
    /// Seed of the invite's key.
    pub seed: Secret,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Ticket");
        shown.field("issuer", &self.issuer).field("addresses", &self.addresses);
        shown.finish_non_exhaustive()
    }
}

impl Ticket {
    /// As text. Addresses beyond the limit are left out.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(vec![VERSION, KIND_INVITE]);
        out.extend_from_slice(&self.issuer.0);
        let addresses = self.addresses.iter().take(MAX_TICKET_ADDRESSES);
        out.put_varint(addresses.len() as u64);
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&address.port().to_le_bytes());
        }
        out.extend_from_slice(self.seed.expose());
        let check = blake3::hash(&out);
        out.extend_from_slice(&check.as_bytes()[..CHECK_LEN]);
        let mut text = Zeroizing::new(PREFIX.to_owned());
        BASE32.encode_append(&out, &mut text);
        text
    }

    /// The ticket in this text.
    pub fn parse(text: &str) -> Result<Self> {
        let not = FormatError::NotA { what: "ticket: it does not begin with `warp1`" };
        if text.len() > MAX_TICKET_LEN {
            let (value, limit) = (text.len() as u64, MAX_TICKET_LEN as u64);
            return Err(FormatError::Limit { at: AT, value, limit });
        }
        let (prefix, code) = text.split_at_checked(PREFIX.len()).ok_or(not.clone())?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(not);
        }
        // A cut one mostly fails here, a mistyped one at its checksum.
        let bytes = BASE32.decode(code.as_bytes()).map_err(|_| FormatError::Checksum { at: AT })?;
        let bytes = Zeroizing::new(bytes);
        let version = *bytes.first().ok_or(FormatError::Truncated { at: AT })?;
        let (body, check) =
            bytes.split_last_chunk::<CHECK_LEN>().ok_or(FormatError::Truncated { at: AT })?;
        if blake3::hash(body).as_bytes()[..CHECK_LEN] != *check {
            return Err(FormatError::Checksum { at: AT });
        }
        check_version(AT, version)?;
        Self::decode(body)
    }

    fn decode(body: &[u8]) -> Result<Self> {
        let mut r = Reader::new(body);
        r.u8(AT)?;
        if r.u8(AT)? != KIND_INVITE {
            return Err(FormatError::Unknown { at: AT, what: "kind of ticket" });
        }
        let issuer = DeviceId(r.array(AT)?);
        let count = r.varint(AT)?;
        if count > MAX_TICKET_ADDRESSES as u64 {
            let limit = MAX_TICKET_ADDRESSES as u64;
            return Err(FormatError::Limit { at: AT, value: count, limit });
        }
        let mut addresses = Vec::new();
        for _ in 0..count {
            let ip = match r.u8(AT)? {
                4 => IpAddr::from(r.array::<4>(AT)?),
                6 => IpAddr::from(r.array::<16>(AT)?),
                _ => return Err(FormatError::Invalid { at: AT }),
            };
            addresses.push(SocketAddr::new(ip, u16::from_le_bytes(r.array(AT)?)));
        }
        let seed = Secret::new(r.array(AT)?);
        r.end(AT)?;
        Ok(Self { issuer, addresses, seed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            issuer: DeviceId([0xab; 32]),
            addresses: vec!["10.0.0.7:4433".parse().unwrap(), "[fd00::1]:9".parse().unwrap()],
            seed: Secret::new([0x5e; 32]),
        }
    }

    #[test]
    fn a_ticket_comes_back_in_either_case_and_hides_its_seed() {
        let text = ticket().encode();
        assert!(text.starts_with("warp1") && text.chars().all(|c| c.is_ascii_alphanumeric()));
        for typed in [text.to_string(), text.to_ascii_uppercase()] {
            let back = Ticket::parse(&typed).unwrap();
            assert_eq!((back.issuer, &back.addresses), (ticket().issuer, &ticket().addresses));
            assert_eq!(back.seed.expose(), &[0x5e; 32]);
        }
        assert!(!format!("{:?}", ticket()).contains("94"));
    }

    #[test]
    fn no_mistyped_or_missing_letter_passes() {
        let text = ticket().encode();
        for i in 0..text.len() {
            let mut bad = text.to_string().into_bytes();
            bad[i] = if bad[i] == b'a' { b'b' } else { b'a' };
            assert!(Ticket::parse(std::str::from_utf8(&bad).unwrap()).is_err(), "letter {i}");
            assert!(Ticket::parse(&text[..i]).is_err(), "cut at {i}");
        }
        for bad in ["", "warp1", "warp1!", "WARP", "warp2aaaa", &"warp1a".repeat(1000)] {
            assert!(Ticket::parse(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn the_text_of_a_ticket_is_pinned() {
        assert_eq!(
            ticket().encode().as_str(),
            "warp1aeakxk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xkycaqfaaaahkeiqn7iaaaaaaaaaaaaaaaaaaaaaaaijabpf4xs6lzpf4xs6lzpf4xs6lzpf4xs6lzpf4xs6lzpf4xs6lzpf4djd3c6q"
        );
    }
}
