//! A changed count publishes nothing.

exchange_by!(|word, current, new| {
    let relaxed = Ordering::Relaxed;
    word.compare_exchange(current, new, relaxed, relaxed)
});
