//! What clients were answered, counted.

use std::collections::BTreeMap;

/// Answered calls of clients per round.
const PER_ROUND_MIN: usize = 50;

/// By call and outcome.
#[derive(Debug, Default)]
pub struct Answers(pub BTreeMap<String, usize>);

impl Answers {
    /// Those that these lines of a history tell of.
    pub fn add(&mut self, lines: &str) {
        for line in lines.lines() {
            let Some((call, outcome)) = line.split_once(": ") else {
                continue;
            };
            // A line that was written before the call has no end of it.
            if call
                .split(' ')
                .next()
                .is_some_and(|time| time.ends_with(".."))
            {
                continue;
            }
            let call = call.split(' ').nth(5).unwrap_or_default();
            let outcome = match outcome.strip_prefix("saw nothing") {
                Some(_) => "nothing",
                None => outcome.split(' ').next().unwrap_or_default(),
            };
            *self.0.entry(format!("{call} {outcome}")).or_default() += 1;
        }
    }

    /// What is missing to prove anything in so many rounds.
    pub fn lack(&self, rounds: usize) -> Option<String> {
        let answers = self.0.iter();
        let answers = answers.filter(|(outcome, _)| !outcome.ends_with("unclear"));
        let answered: usize = answers.map(|(_, count)| count).sum();
        let least = rounds * PER_ROUND_MIN;
        if answered < least {
            return Some(format!("{answered} answers of at least {least}"));
        }
        [
            "write acknowledged",
            "claim won",
            "claim lost",
            "get_or_init won",
            "read saw",
            "read_linearizable saw",
            "read_linearizable nothing",
            "wait saw",
        ]
        .into_iter()
        .find_map(|outcome| {
            let count = self.0.get(outcome).copied().unwrap_or_default();
            (count < rounds).then(|| format!("{outcome}: {count} of at least {rounds}"))
        })
    }
}
