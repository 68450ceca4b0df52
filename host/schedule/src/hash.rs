//! Tables that are asked millions of times a day. The hash has a secret seed, for hotkeys are strangers' choice.

use foldhash::fast::RandomState;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
pub(crate) type HashSet<T> = std::collections::HashSet<T, RandomState>;
