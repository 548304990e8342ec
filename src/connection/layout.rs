//! Into how many shards a connection's mailboxes are divided, and what the states of these shards are called.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lake::Shard;

/// How a connection is split. Each change is a new generation, with states of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Counts the changes; 0 for a connection that was never split.
    pub generation: u32,
    /// Shards now.
    pub shards: u32,
    /// Shards of the generation before.
    pub before: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self { generation: 0, shards: 1, before: 0 }
    }
}

impl Layout {
    /// Whether the connection was never split.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The next generation.
    pub fn split(self, shards: u32) -> Self {
        Self { generation: self.generation + 1, shards, before: self.shards }
    }

    /// The shards of a connection.
    pub fn shards(self, connection: Uuid) -> Vec<Shard> {
        let states = |generation, of| (1..=of).map(move |number| state_id(connection, generation, number, of));
        let inherits: Vec<Uuid> = match self.generation {
            0 => Vec::new(),
            generation => states(generation - 1, self.before).collect(),
        };
        (1..=self.shards)
            .zip(states(self.generation, self.shards))
            .map(|(number, state_id)| Shard { number, of: self.shards, state_id, inherits: inherits.clone() })
            .collect()
    }
}

/// The first layout's only state has the connection's own id.
fn state_id(connection: Uuid, generation: u32, number: u32, of: u32) -> Uuid {
    match generation {
        0 => connection,
        _ => Uuid::new_v5(&connection, format!("{generation} {number}/{of}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_shard_of_each_generation_has_a_state_of_its_own_and_inherits_the_generation_before() {
        let connection = Uuid::from_u128(7);
        let mut layout = Layout::default();
        assert_eq!(layout.shards(connection), [Shard::whole(connection)]);
        let (mut before, mut known) = (vec![connection], HashSet::from([connection]));
        for count in [3, 3, 16, 1, 2] {
            layout = layout.split(count);
            let shards = layout.shards(connection);
            assert_eq!(shards.len(), count as usize);
            assert!(shards.iter().all(|shard| shard.inherits == before && known.insert(shard.state_id)));
            before = shards.iter().map(|shard| shard.state_id).collect();
        }
    }
}
