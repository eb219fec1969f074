//! The pool core against a naive model: nobody is passed by, nothing leaks.
//! They must never look into the slice: only what it answers counts.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Take,
    Put(usize),
    Lose(usize),
    OpenOk,
    OpenFails,
    IdleDies(usize),
    Leave(usize),
    Limit(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => Just(Op::Take),
        5 => any::<usize>().prop_map(Op::Put),
        1 => any::<usize>().prop_map(Op::Lose),
        3 => Just(Op::OpenOk),
        1 => Just(Op::OpenFails),
        1 => any::<usize>().prop_map(Op::IdleDies),
        1 => any::<usize>().prop_map(Op::Leave),
        1 => (0usize..5).prop_map(Op::Limit),
    ]
}

/// What a person would keep on paper.
#[derive(Default)]
struct Model {
    idle: Vec<u32>,
    used: Vec<u32>,
    waiting: VecDeque<u32>,
    opening: usize,
    limit: usize,
    clients: u32,
    servers: u32,
}

impl Model {
    fn apply(&mut self, slice: &mut Slice<u32, u32>, op: &Op) {
        match *op {
            Op::Take => {
                self.clients += 1;
                match slice.take(self.clients) {
                    Taken::Server(server) => {
                        assert_eq!(self.idle.pop(), Some(server), "not the one put back last");
                        self.used.push(server);
                    }
                    Taken::Waits { open } => {
                        assert!(self.idle.is_empty(), "waits although a server rests");
                        self.waiting.push_back(self.clients);
                        self.opening += usize::from(open);
                    }
                }
            }
            Op::Put(n) if !self.used.is_empty() => {
                let server = self.used.remove(n % self.used.len());
                self.put(slice, server);
            }
            Op::Lose(n) if !self.used.is_empty() => {
                self.used.remove(n % self.used.len());
                slice.lost();
                self.opening += usize::from(slice.wants_one_more());
            }
            Op::OpenOk if self.opening > 0 => {
                self.opening -= 1;
                self.servers += 1;
                slice.opened();
                let server = self.servers;
                self.put(slice, server);
            }
            Op::OpenFails if self.opening > 0 => {
                self.opening -= 1;
                slice.open_failed();
                self.opening += usize::from(slice.wants_one_more());
            }
            Op::IdleDies(n) if !self.idle.is_empty() => {
                let server = self.idle.remove(n % self.idle.len());
                assert!(slice.remove_idle(&server));
                assert!(!slice.remove_idle(&server));
            }
            Op::Leave(n) if !self.waiting.is_empty() => {
                let client = self.waiting.remove(n % self.waiting.len()).unwrap();
                assert!(slice.leave(&client));
            }
            Op::Limit(limit) => {
                self.limit = limit;
                slice.set_limit(limit);
                while let Some(server) = slice.excess() {
                    assert_eq!(self.idle.remove(0), server);
                }
                while slice.wants_one_more() {
                    self.opening += 1;
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, slice: &mut Slice<u32, u32>, server: u32) {
        let open = self.idle.len() + self.used.len() + 1;
        match slice.put(server) {
            Next::Attach(client, given) => {
                assert_eq!((Some(client), given), (self.waiting.pop_front(), server), "not the oldest waiter");
                self.used.push(server);
            }
            Next::Rests => {
                assert!(self.waiting.is_empty(), "rests while a client waits");
                self.idle.push(server);
            }
            Next::Close(given) => {
                assert_eq!(given, server);
                assert!(open > self.limit, "closed below the limit");
            }
        }
    }

    fn check(&self, slice: &Slice<u32, u32>) {
        assert_eq!(slice.idle(), &self.idle[..]);
        assert_eq!(slice.waiting(), self.waiting.len());
        assert_eq!(slice.open(), self.idle.len() + self.used.len());
        assert_eq!(slice.opening(), self.opening);
        assert_eq!(slice.load(), self.used.len() + self.waiting.len());
        assert!(self.waiting.is_empty() || self.idle.is_empty());
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(limit in 0usize..5, ops in prop::collection::vec(op(), 0..200)) {
        let mut slice = Slice::new(limit);
        let mut model = Model { limit, ..Model::default() };
        for op in &ops {
            model.apply(&mut slice, op);
            model.check(&slice);
        }
    }

    #[test]
    fn everybody_is_served_in_the_end(ops in prop::collection::vec(op(), 0..100)) {
        let mut slice = Slice::new(2);
        let mut model = Model { limit: 2, ..Model::default() };
        for op in &ops {
            model.apply(&mut slice, op);
        }
        model.apply(&mut slice, &Op::Limit(2));
        for _ in 0..1000 {
            if model.waiting.is_empty() {
                return Ok(());
            }
            model.apply(&mut slice, &Op::OpenOk);
            model.apply(&mut slice, &Op::Put(0));
        }
        prop_assert!(model.waiting.is_empty(), "a lost wake-up: {} wait", model.waiting.len());
    }
}
