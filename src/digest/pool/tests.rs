use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::digest::Digests;

fn pool(threads: usize, instructions: Instructions) -> HashPool {
    HashPool::with(threads, instructions).unwrap()
}

/// What a hasher alone makes of the same bytes.
fn alone(buffers: &[Bytes]) -> Digests {
    let mut hasher = Hasher::new();
    buffers.iter().for_each(|buffer| hasher.update(buffer));
    hasher.finish().0
}

#[test]
fn a_panic_in_a_callback_harms_nobody_else() {
    let pool = pool(1, Instructions::best());
    let (done, hashed) = mpsc::channel();
    // All but the first wait until that one was taken, and then share its thread.
    for number in 0..40_usize {
        let done = done.clone();
        let buffer = Bytes::from(vec![7; 1_000 * number]);
        pool.hash(Hasher::new(), vec![buffer], move |hasher| {
            assert!(number % 3 > 0, "provoked");
            done.send(hasher.size_bytes()).unwrap();
        });
    }
    drop(done);
    let mut sizes: Vec<_> = hashed.iter().collect();
    sizes.sort_unstable();
    assert_eq!(sizes, (0..40).filter(|number| number % 3 > 0).map(|number| 1_000 * number).collect::<Vec<_>>());
}

#[test]
fn buffers_go_back_as_soon_as_they_were_hashed() {
    let pool = pool(1, Instructions::best());
    let (done, hashed) = mpsc::channel();
    let buffers = vec![Bytes::from(vec![1; 100_000]), Bytes::from(vec![2; 30])];
    let kept = buffers.clone();
    pool.hash(Hasher::new(), buffers, move |hasher| done.send(hasher).unwrap());
    assert_eq!(hashed.recv().unwrap().size_bytes(), 100_030);
    assert!(kept.iter().all(Bytes::is_unique));
}

#[test]
fn what_was_set_aside_is_hashed_by_whoever_asks_first_and_in_portions() {
    let pool = pool(1, Instructions::best());
    let (done, hashed) = mpsc::channel();
    let buffers: Vec<Bytes> = (0..40_usize).map(|number| vec![number as u8; 1_500 * number].into()).collect();
    for (number, buffer) in buffers.iter().enumerate() {
        let done = done.clone();
        pool.set_aside(Hasher::new(), vec![buffer.clone()], move |hasher| done.send((number, hasher)).unwrap());
    }
    let mut portions = Vec::new();
    while pool.hash_aside() {
        let mut portion: Vec<_> = hashed.try_iter().collect();
        portion.sort_unstable_by_key(|(number, _)| *number);
        portions.push(portion.len());
        for (number, hasher) in portion {
            assert_eq!(hasher.finish().0, alone(&buffers[number..=number]));
        }
    }
    // First as many as there are lanes, then as many as have 256 KB together.
    assert_eq!(portions, [16, 8, 6, 5, 4, 1]);
}

#[test]
fn a_piece_that_is_too_large_to_be_set_aside_is_hashed_all_the_same() {
    let pool = pool(1, Instructions::best());
    let (done, hashed) = mpsc::channel();
    pool.set_aside(Hasher::new(), vec![Bytes::from(vec![1; 2 * ASIDE_BYTES])], move |hasher| {
        done.send(hasher).unwrap()
    });
    assert!(pool.hash_aside());
    assert!(!pool.hash_aside());
    assert_eq!(hashed.recv().unwrap().size_bytes(), 2 * ASIDE_BYTES as u64);
}

#[test]
fn an_empty_piece_is_done_at_once() {
    let pool = pool(2, Instructions::best());
    let (done, hashed) = mpsc::channel();
    pool.hash(Hasher::new(), Vec::new(), move |hasher| done.send(hasher).unwrap());
    assert_eq!(hashed.recv().unwrap().finish().0, alone(&[]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Many attachments at once, each a piece at a time as a run gives them, each piece in buffers of any size.
    #[test]
    fn attachments_that_share_the_threads_keep_their_digests(
        attachments in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(0..3_000_usize, 0..4), 0..5), 1..50),
        threads in 1..4_usize,
        choice in any::<prop::sample::Index>(),
    ) {
        let pool = Arc::new(pool(threads, *choice.get(&Instructions::all())));
        let (done, hashed) = mpsc::channel();
        let mut expected = Vec::new();
        for (number, lens) in attachments.iter().enumerate() {
            let buffer = |len: usize, salt: usize| -> Bytes {
                (0..len).map(|index| ((index * index + salt) >> 3) as u8).collect()
            };
            let pieces: Vec<Vec<Bytes>> = lens
                .iter()
                .map(|lens| lens.iter().map(|len| buffer(*len, 1_000 * number + len)).collect())
                .collect();
            expected.push(alone(&pieces.concat()));
            let done = done.clone();
            let next = Arc::clone(&pool);
            hash_in_turn(&next, Hasher::new(), pieces.into_iter(), Box::new(move |digests| done.send((number, digests)).unwrap()));
        }
        drop(done);
        let mut digests: Vec<_> = hashed.iter().collect();
        digests.sort_unstable_by_key(|(number, _)| *number);
        prop_assert_eq!(digests.into_iter().map(|(_, digests)| digests).collect::<Vec<_>>(), expected);
    }
}

/// Gives the next piece when the one before it is done.
fn hash_in_turn(
    pool: &Arc<HashPool>,
    hasher: Hasher,
    mut pieces: std::vec::IntoIter<Vec<Bytes>>,
    on_done: Box<dyn FnOnce(Digests) + Send>,
) {
    let Some(piece) = pieces.next() else { return on_done(hasher.finish().0) };
    let next = Arc::clone(pool);
    pool.hash(hasher, piece, move |hasher| hash_in_turn(&next, hasher, pieces, on_done));
}
