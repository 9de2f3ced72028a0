//! An actor's word is compared by a load and changed by a store.

exchange_by!(|word, current, new| {
    let seen = word.load(Ordering::Acquire);
    if seen != current {
        return Err(seen);
    }
    word.store(new, Ordering::Release);
    Ok(seen)
});
