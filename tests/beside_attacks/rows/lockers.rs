use std::path::Path;

use crate::attack::{Attack, attackers, honest};
use crate::crowd::{Crowd, Datagrams};
use crate::site::{Site, coins};
use crate::wire::{DETECT, Number, Owned, detect, header};

/// Requests under the key of one of very many lockers that share the five bytes by which it is
/// found.
pub struct SharedFiveBytes;

impl SharedFiveBytes {
    const LOCKERS: u32 = 1_024;
    const PER_SECOND: f64 = 5_000.0;
    const SHARED: [u8; 5] = *b"five!";

    fn key(number: u32) -> Number {
        let mut key = [0xff; 16];
        key[..5].copy_from_slice(&Self::SHARED);
        key[5..8].fill(0x11);
        key[8..12].copy_from_slice(&number.to_be_bytes());
        key
    }
}

impl Attack for SharedFiveBytes {
    fn name(&self) -> &'static str {
        "shared-five-bytes"
    }

    fn what(&self) -> &'static str {
        "13: 5,000 requests a second of encryption type 2 that no key opens, 1,024 lockers that share \
         five bytes, UDP, one address, dialect raidax"
    }

    /// The dialect in which type 2 is taken without further settings.
    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        vec![("protocol.dialect", "raidax".to_owned())]
    }

    fn coins(&self) -> Vec<Owned> {
        let coin = |serial| Owned {
            denomination: 4,
            serial,
            number: Self::key(serial),
        };
        (0..Self::LOCKERS).map(coin).collect()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let sealed = |_| {
            let body = 18 + 21;
            let mut bytes = header(0, DETECT, body);
            bytes[16] = 2;
            bytes[17..22].copy_from_slice(&Self::SHARED);
            bytes.extend_from_slice(&rand::random::<[u8; 16]>());
            bytes.extend_from_slice(&rand::random::<[u8; 21]>());
            bytes.extend_from_slice(b">>");
            bytes
        };
        let requests = (0..1_024).map(sealed).collect();
        let (node, from) = (site.address(), attackers(1));
        Box::new(Datagrams::new(node, &from, requests, Self::PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, requests, per_second))
    }
}
