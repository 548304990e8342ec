//! A part of a connection's mailboxes with a state of its own, so that several machines can read one tenant.
//!
//! To the log of `file_events` each shard is an application of its own, with its own transactions and its own folder of
//! checkpoints. So all laws of a commit hold for each shard by itself: two runs of one shard exclude each other, two
//! shards compete for the version of the table and for nothing else.

use uuid::Uuid;

/// One of the shards of a connection; the only one, where it is not split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which one, counted from 1.
    pub number: u32,
    /// Of how many.
    pub of: u32,
    /// Names its state in the log and among the checkpoints.
    pub state_id: Uuid,
    /// The states of the layout before this one, which its first run takes over.
    pub inherits: Vec<Uuid>,
}

impl Shard {
    /// All mailboxes of a connection that was never split.
    pub fn whole(connection: Uuid) -> Self {
        Self { number: 1, of: 1, state_id: connection, inherits: Vec::new() }
    }

    /// Whether a mailbox belongs here; each text, also an empty one, belongs to exactly one shard.
    ///
    /// A promise between machines and versions: the UUID of version 5 of the address in the namespace of object ids, as
    /// a number, modulo the number of shards. Letters of ASCII alone are made lower case, since the rules for others
    /// change with Unicode.
    pub fn has(&self, mailbox: &str) -> bool {
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, mailbox.to_ascii_lowercase().as_bytes());
        hash.as_u128() % u128::from(self.of) == u128::from(self.number - 1)
    }

    /// Whether it is the one that says what concerns no mailbox, so that it is said once.
    pub fn is_first(&self) -> bool {
        self.number == 1
    }

    /// How people call it, `3/16`; nothing where the connection is not split.
    pub fn name(&self) -> Option<String> {
        (self.of > 1).then(|| format!("{}/{}", self.number, self.of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard_of(mailbox: &str, of: u32) -> u32 {
        let is_here = |number: &u32| Shard { number: *number, of, ..Shard::whole(Uuid::nil()) }.has(mailbox);
        let found: Vec<u32> = (1..=of).filter(is_here).collect();
        assert_eq!(found.len(), 1, "`{mailbox}` is in {found:?} of {of}");
        found[0]
    }

    /// The figures are those of Python's `uuid.uuid5(uuid.NAMESPACE_OID, address).int % of + 1`.
    #[test]
    fn a_mailbox_stays_in_its_shard_for_ever() {
        let figures = [("ann@contoso.example", [2, 15]), ("bob@contoso.example", [3, 2]), ("", [2, 16])];
        for (mailbox, [of_3, of_16]) in figures {
            assert_eq!([shard_of(mailbox, 3), shard_of(mailbox, 16)], [of_3, of_16], "{mailbox}");
        }
        assert_eq!(shard_of("Ann@Contoso.example", 16), shard_of("ann@contoso.example", 16));
        assert_eq!(shard_of("Ärger@contoso.example", 1), 1);
    }

    #[test]
    fn shards_are_of_about_the_same_size() {
        let mut counts = [0_u32; 16];
        for user in 0..16_000 {
            counts[shard_of(&format!("user{user}@contoso.example"), 16) as usize - 1] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
