//! One piece of work for all who ask for it: whoever comes before it begins is answered by it, whoever comes later by the next.

use parking_lot::Mutex;

/// Callers that wait for the next turn.
#[derive(Debug)]
pub(super) struct SharedTurn<C> {
    waiting: Mutex<Vec<C>>,
    waiting_max: usize,
}

/// What a caller has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined<C> {
    /// See to it that [`serve`](SharedTurn::serve) is called.
    First,
    /// Nothing: the turn that the first has asked for takes it along.
    Later,
    /// As many wait as may (I7): it is handed back.
    Full(C),
}

impl<C> SharedTurn<C> {
    /// For at most `waiting_max` callers at a time.
    pub(super) fn new(waiting_max: usize) -> Self {
        Self { waiting: Mutex::default(), waiting_max }
    }

    /// Waits for the next turn.
    pub(super) fn join(&self, caller: C) -> Joined<C> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.waiting_max {
            return Joined::Full(caller);
        }
        waiting.push(caller);
        if waiting.len() == 1 { Joined::First } else { Joined::Later }
    }

    /// Does the work for all who wait now, then answers each of them. What comes meanwhile is not answered by it: the work
    /// may have begun before that caller's bytes were there.
    pub(super) fn serve<R>(&self, work: impl FnOnce(&C) -> R, mut answer: impl FnMut(C, &R)) {
        let callers = self.take();
        let Some(first) = callers.first() else { return };
        let outcome = work(first);
        for caller in callers {
            answer(caller, &outcome);
        }
    }

    /// Ends the wait of all: they are the taker's.
    pub(super) fn take(&self) -> Vec<C> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_are_answered_by_one_piece_of_work() {
        let turn = SharedTurn::new(8);
        assert_eq!(turn.join(1), Joined::First);
        assert_eq!(turn.join(2), Joined::Later);
        let (mut works, mut answered) = (0, Vec::new());
        turn.serve(|_| works += 1, |caller, &()| answered.push(caller));
        assert_eq!((works, answered), (1, vec![1, 2]));
    }

    #[test]
    fn who_comes_during_the_work_is_answered_by_the_next() {
        let turn = SharedTurn::new(8);
        turn.join("early");
        let mut answered = Vec::new();
        turn.serve(|_| assert_eq!(turn.join("late"), Joined::First), |caller, &()| answered.push(caller));
        assert_eq!(answered, ["early"]);
        turn.serve(|_| (), |caller, &()| answered.push(caller));
        assert_eq!(answered, ["early", "late"]);
    }

    #[test]
    fn more_than_may_wait_are_handed_back() {
        let turn = SharedTurn::new(1);
        assert_eq!(turn.join('a'), Joined::First);
        assert_eq!(turn.join('b'), Joined::Full('b'));
        assert_eq!(turn.take(), ['a']);
        assert_eq!(turn.join('b'), Joined::First);
    }
}
