//! The pool core against a naive model: nobody is passed by, nothing leaks.
//! They must never look into the slice: only what it answers counts.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// By a client that had one of the servers there have been so far last, or none.
    Take(u32),
    Put(usize),
    Lose(usize),
    OpenOk,
    OpenFails,
    IdleDies(usize),
    Leave(usize),
    Resize(Size),
    Press(bool),
    OldestGoes,
}

fn size() -> impl Strategy<Value = Size> {
    (0usize..5, 0usize..4, 0usize..3, 1usize..4).prop_map(|(limit, min, reserve, burst)| Size {
        limit,
        min,
        reserve,
        burst,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => any::<u32>().prop_map(Op::Take),
        5 => any::<usize>().prop_map(Op::Put),
        1 => any::<usize>().prop_map(Op::Lose),
        3 => Just(Op::OpenOk),
        1 => Just(Op::OpenFails),
        1 => any::<usize>().prop_map(Op::IdleDies),
        1 => any::<usize>().prop_map(Op::Leave),
        1 => size().prop_map(Op::Resize),
        1 => any::<bool>().prop_map(Op::Press),
        1 => Just(Op::OldestGoes),
    ]
}

/// What a person would keep on paper.
#[derive(Default)]
struct Model {
    idle: Vec<u32>,
    used: Vec<u32>,
    waiting: VecDeque<u32>,
    opening: usize,
    size: Option<Size>,
    rotate: bool,
    pressed: bool,
    clients: u32,
    servers: u32,
}

impl Model {
    fn apply(&mut self, slice: &mut Slice<u32, u32>, op: &Op) {
        match *op {
            Op::Take(last) => {
                self.clients += 1;
                let last = Some(last % (self.servers + 1)).filter(|last| *last > 0);
                match slice.take(self.clients, last) {
                    Taken::Server(server) => {
                        let newest = self.idle.len() - 1;
                        let own = self.idle.iter().position(|idle| Some(*idle) == last);
                        let at = if self.rotate { 0 } else { own.unwrap_or(newest) };
                        assert_eq!(self.idle.remove(at), server, "not the next in order");
                        self.used.push(server);
                    }
                    Taken::Waits => {
                        assert!(self.idle.is_empty(), "waits although a server rests");
                        self.waiting.push_back(self.clients);
                    }
                }
                self.grow(slice);
            }
            Op::Put(n) if !self.used.is_empty() => {
                let server = self.used.remove(n % self.used.len());
                self.put(slice, server);
            }
            Op::Lose(n) if !self.used.is_empty() => {
                self.used.remove(n % self.used.len());
                slice.lost();
                self.grow(slice);
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
                self.grow(slice);
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
            Op::OldestGoes if !self.idle.is_empty() => {
                assert_eq!(slice.pop_idle(), Some(self.idle.remove(0)));
            }
            Op::Press(pressed) => {
                self.pressed = pressed;
                slice.press(pressed);
                self.grow(slice);
            }
            Op::Resize(size) => {
                self.size = Some(size);
                slice.resize(size, self.rotate);
                while let Some(server) = slice.excess() {
                    assert_eq!(self.idle.remove(0), server);
                }
                self.grow(slice);
            }
            _ => {}
        }
    }

    fn size(&self) -> Size {
        self.size.unwrap_or(Size::of(2))
    }

    fn grow(&mut self, slice: &mut Slice<u32, u32>) {
        let size = self.size();
        loop {
            let total = self.idle.len() + self.used.len() + self.opening;
            let most = size.limit + if self.pressed { size.reserve } else { 0 };
            let wanted = match slice.wants() {
                Want::Nothing => break,
                Want::Waiter => self.opening < self.waiting.len() && total < most,
                Want::Warm => total < size.min && total < size.limit,
            };
            assert!(wanted && self.opening < size.burst, "opens without need");
            slice.opens();
            self.opening += 1;
        }
        let idle_need =
            self.opening < self.waiting.len() && self.idle.len() + self.used.len() + self.opening < size.limit;
        assert!(!idle_need || self.opening >= size.burst, "a waiter for whom nothing is opened");
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
                assert!(open > self.size().limit, "closed below the limit");
                assert!(
                    self.waiting.is_empty() || open > self.size().limit + self.size().reserve,
                    "closed while needed"
                );
            }
        }
    }

    fn check(&self, slice: &Slice<u32, u32>) {
        assert_eq!(slice.idle().copied().collect::<Vec<_>>(), self.idle);
        assert_eq!(slice.waiting(), self.waiting.len());
        assert_eq!(slice.open(), self.idle.len() + self.used.len());
        assert_eq!(slice.opening(), self.opening);
        assert_eq!(slice.load(), self.used.len() + self.waiting.len());
        assert!(self.waiting.is_empty() || self.idle.is_empty());
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(size in size(), rotate: bool, ops in prop::collection::vec(op(), 0..200)) {
        let mut slice = Slice::new(size, rotate);
        let mut model = Model { size: Some(size), rotate, ..Model::default() };
        for op in &ops {
            model.apply(&mut slice, op);
            model.check(&slice);
        }
    }

    #[test]
    fn everybody_is_served_in_the_end(ops in prop::collection::vec(op(), 0..100)) {
        let mut slice = Slice::new(Size::of(2), false);
        let mut model = Model::default();
        for op in &ops {
            model.apply(&mut slice, op);
        }
        model.apply(&mut slice, &Op::Resize(Size::of(2)));
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

/// A slice with servers 1 to `count` at rest, the first one longest.
fn rested(count: u32, rotate: bool) -> Slice<u32, u32> {
    let mut slice = Slice::new(Size::of(count as usize), rotate);
    for server in 1..=count {
        slice.opened();
        assert_eq!(slice.put(server), Next::Rests);
    }
    slice
}

#[test]
fn a_client_gets_the_server_it_had_last() {
    let mut slice = rested(5, false);
    assert_eq!(slice.take(0, Some(2)), Taken::Server(2));
    assert_eq!(slice.take(0, Some(2)), Taken::Server(5), "not the last used although its own is in use");
    assert_eq!(slice.take(0, None), Taken::Server(4));
    assert_eq!(slice.idle().copied().collect::<Vec<_>>(), [1, 3]);
    let mut slice = rested(3, true);
    assert_eq!(slice.take(0, Some(3)), Taken::Server(1), "servers that take turns do not");
}

#[test]
fn what_has_rested_long_is_not_looked_for() {
    let count = NEAR as u32 + 1;
    assert_eq!(rested(count, false).take(0, Some(2)), Taken::Server(2));
    assert_eq!(rested(count, false).take(0, Some(1)), Taken::Server(count));
}

#[test]
fn nobody_passes_a_waiter_for_the_sake_of_a_server_it_had() {
    let mut slice = rested(1, false);
    assert_eq!(slice.take(1, None), Taken::Server(1));
    assert_eq!((slice.take(2, None), slice.take(3, Some(1))), (Taken::Waits, Taken::Waits));
    assert_eq!(slice.put(1), Next::Attach(2, 1));
    assert_eq!(slice.put(1), Next::Attach(3, 1));
}
