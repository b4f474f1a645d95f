//! Any text is a ticket or refused with a reason; a ticket comes back from what
//! it is written as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::limits::MAX_TICKET_ADDRESSES;
use warp_format::ticket::Ticket;

fuzz_target!(|text: &str| {
    if let Ok(ticket) = Ticket::parse(text) {
        assert!(ticket.addresses.len() <= MAX_TICKET_ADDRESSES);
        let again = Ticket::parse(&ticket.encode()).expect("it was one before");
        assert_eq!((again.issuer, &again.addresses), (ticket.issuer, &ticket.addresses));
        assert_eq!(again.seed.expose(), ticket.seed.expose());
    }
});
