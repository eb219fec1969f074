//! Budgets: nobody starves, nothing is counted twice.
//! They must never look into a budget: only what it answers counts.

use proptest::prelude::*;

use super::*;

/// A slice as its users see it: clients that want a server, servers busy and at rest.
struct Player {
    stake: Stake,
    clients: u32,
    servers: u32,
}

impl Player {
    fn new(budgets: &Budgets, limit: u32) -> Self {
        let stake = budgets.stake(Scope::Database("d".into()), limit, 0, &Arc::default());
        Self { stake, clients: 0, servers: 0 }
    }

    /// Opens what it may.
    fn grow(&mut self) {
        while self.servers < self.clients && self.stake.take(false, false) {
            self.servers += 1;
        }
        self.stake.want(self.clients.saturating_sub(self.servers));
    }

    /// One of its servers has done its work.
    fn turn(&mut self) {
        let resting = self.servers > self.clients;
        let goes = if resting { self.stake.must_spare() } else { self.stake.is_pressed() && self.stake.must_give_up() };
        if self.servers > 0 && goes {
            self.servers -= 1;
            self.stake.give();
        }
    }
}

fn settle(players: &mut [Player]) {
    for _ in 0..200 {
        for player in &mut *players {
            player.turn();
            player.grow();
        }
    }
}

#[test]
fn a_latecomer_gets_its_part_of_busy_connections() {
    let budgets = Budgets::default();
    let mut players = [Player::new(&budgets, 10), Player::new(&budgets, 10)];
    players[0].clients = 50;
    settle(&mut players);
    assert_eq!((players[0].servers, players[1].servers), (10, 0));
    players[1].clients = 50;
    settle(&mut players);
    assert_eq!((players[0].servers, players[1].servers), (5, 5));
    // Who has its part presses nobody: giving a server back costs no lock.
    assert!(!players[0].stake.is_pressed());
    players[0].clients = 1;
    settle(&mut players);
    assert_eq!((players[0].servers, players[1].servers), (1, 9), "rest is no reason to keep");
}

#[test]
fn more_slices_than_connections_take_turns() {
    let budgets = Budgets::default();
    let mut players: Vec<_> = (0..5).map(|_| Player::new(&budgets, 2)).collect();
    for player in &mut players {
        player.clients = 3;
    }
    let mut served = [0; 5];
    for _ in 0..100 {
        for (player, served) in players.iter_mut().zip(&mut served) {
            player.turn();
            player.grow();
            *served += u32::from(player.servers > 0);
        }
    }
    assert!(served.iter().all(|&n| n >= 20), "somebody starved: {served:?}");
}

#[test]
fn warm_servers_are_taken_only_when_nobody_waits() {
    let budgets = Budgets::default();
    let (a, b) = (Player::new(&budgets, 2), Player::new(&budgets, 2));
    a.stake.want(1);
    assert!(!b.stake.take(true, false), "warmth before need");
    assert!(b.stake.take(false, false), "there is one for each");
    assert!(a.stake.take(false, false));
    assert!(!a.stake.take(true, false));
}

#[test]
fn a_stake_that_goes_gives_back_what_it_had() {
    let budgets = Budgets::default();
    let a = Player::new(&budgets, 2);
    assert!(a.stake.take(false, false) && a.stake.take(false, false));
    let b = Player::new(&budgets, 2);
    assert!(!b.stake.take(false, false));
    drop(a);
    assert!(b.stake.take(false, false) && b.stake.take(false, false) && !b.stake.take(false, false));
    b.stake.set_limit(3);
    assert!(b.stake.take(false, false));
}

#[test]
fn a_limit_that_shrinks_is_reached_as_servers_come_back() {
    let budgets = Budgets::default();
    let mut players = [Player::new(&budgets, 8), Player::new(&budgets, 8)];
    players.iter_mut().for_each(|player| player.clients = 20);
    settle(&mut players);
    assert_eq!((players[0].servers, players[1].servers), (4, 4));
    players[0].stake.set_limit(3);
    settle(&mut players);
    let open = players[0].servers + players[1].servers;
    assert!(open == 3 && players.iter().all(|player| player.servers > 0), "{open} open");
}

proptest! {
    #[test]
    fn never_beyond_the_limit_and_everybody_gets_something(
        limit in 1u32..8,
        ops in prop::collection::vec((0usize..4, 0u32..12), 1..80),
    ) {
        let budgets = Budgets::default();
        let mut players: Vec<_> = (0..4).map(|_| Player::new(&budgets, limit)).collect();
        for (who, clients) in ops {
            players[who].clients = clients;
            players[who].grow();
            players[(who + 1) % 4].turn();
            let open: u32 = players.iter().map(|p| p.servers).sum();
            prop_assert!(open <= limit, "{open} of {limit}");
        }
        settle(&mut players);
        let claims = players.iter().filter(|p| p.clients > 0).count() as u32;
        for player in players.iter().filter(|_| claims <= limit) {
            let part = (limit / claims.max(1)).min(player.clients);
            prop_assert!(player.servers >= part, "{} of {part}", player.servers);
        }
    }
}
