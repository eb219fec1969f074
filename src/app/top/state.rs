//! What `pgweir top` shows at a moment, and what keys make of it.
//! Must never read a clock, a terminal or a network itself.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::ask::Answers;
use super::table::{self, Cell, Order, VIEWS, View};

/// Longest text to filter by, in characters.
const FILTER_MAX: usize = 100;
/// Rows by which PageUp and PageDown go.
const PAGE: usize = 20;

/// The state of the page.
#[derive(Debug)]
pub(super) struct State {
    /// The instance, as people know it.
    pub(super) target: String,
    view: usize,
    orders: [Order; 3],
    selected: [usize; 3],
    pub(super) filter: String,
    /// Keys go to the filter.
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) is_help: bool,
    pub(super) is_over: bool,
    now: Option<Answers>,
    before: Option<Answers>,
    /// Why the last attempt to ask failed.
    pub(super) error: Option<String>,
}

impl State {
    pub(super) fn new(target: String) -> Self {
        Self {
            target,
            view: 0,
            orders: VIEWS.map(View::order),
            selected: [0; 3],
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            is_help: false,
            is_over: false,
            now: None,
            before: None,
            error: None,
        }
    }

    pub(super) fn view(&self) -> View {
        VIEWS.get(self.view).copied().unwrap_or(View::Pools)
    }

    pub(super) fn order(&self, view: View) -> Order {
        VIEWS.iter().position(|it| *it == view).and_then(|at| self.orders.get(at)).copied().unwrap_or(view.order())
    }

    /// What statements are to be asked for by.
    pub(super) fn by(&self) -> &'static str {
        table::by(self.order(View::Queries))
    }

    /// The number of the row that is selected.
    pub(super) fn selected(&self) -> usize {
        self.selected.get(self.view).copied().unwrap_or(0)
    }

    /// The newest answers.
    pub(super) fn answers(&self) -> Option<&Answers> {
        self.now.as_ref()
    }

    pub(super) fn tps(&self) -> Option<f64> {
        table::tps(self.now.as_ref()?, self.before.as_ref())
    }

    /// The rows of a table, filtered and sorted.
    pub(super) fn rows(&self, view: View) -> Vec<Vec<Cell>> {
        let Some(now) = &self.now else { return Vec::new() };
        table::rows(view, now, self.before.as_ref(), self.order(view), &self.filter)
    }

    /// Takes over what was answered. After an error the last answers stay.
    pub(super) fn hear(&mut self, heard: Result<Answers, String>) {
        match heard {
            Ok(answers) => {
                self.error = None;
                self.before = self.now.replace(answers);
            }
            Err(why) => self.error = Some(table::clean(&why)),
        }
        self.bound();
    }

    /// How old what is shown is, if it is older than it should be.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let answers = self.now.as_ref()?;
        (self.error.is_some() || self.is_paused).then(|| now.saturating_duration_since(answers.at))
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            self.is_over |= matches!(key.code, KeyCode::Char('c'));
            return;
        }
        if self.is_typing {
            self.type_in(key.code);
        } else if self.is_help && key.code != KeyCode::Char('q') {
            // Whatever key: the page comes back.
            self.is_help = false;
        } else {
            self.command(key.code);
        }
        self.bound();
    }

    fn type_in(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(it) if self.filter.chars().count() < FILTER_MAX => self.filter.push(it),
            _ => {}
        }
    }

    fn command(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Char('?' | 'h') => self.is_help = true,
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab => self.view = (self.view + 1) % VIEWS.len(),
            KeyCode::BackTab => self.view = (self.view + VIEWS.len() - 1) % VIEWS.len(),
            KeyCode::Char('1') => self.view = 0,
            KeyCode::Char('2') => self.view = 1,
            KeyCode::Char('3') => self.view = 2,
            KeyCode::Up | KeyCode::Char('k') => self.go(|at| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(|at| at + 1),
            KeyCode::PageUp => self.go(|at| at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.go(|at| at + PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.go(|_| 0),
            KeyCode::End | KeyCode::Char('G') => self.go(|_| usize::MAX),
            KeyCode::Right | KeyCode::Char('>' | '.' | 'o') => self.sort(|at, count| (at + 1) % count),
            KeyCode::Left | KeyCode::Char('<' | ',') => self.sort(|at, count| (at + count - 1) % count),
            KeyCode::Char('r') => {
                if let Some(order) = self.orders.get_mut(self.view) {
                    order.ascending = !order.ascending;
                }
            }
            _ => {}
        }
    }

    fn go(&mut self, to: impl Fn(usize) -> usize) {
        if let Some(selected) = self.selected.get_mut(self.view) {
            *selected = to(*selected);
        }
    }

    fn sort(&mut self, to: impl Fn(usize, usize) -> usize) {
        let columns = self.view().columns();
        if let Some(order) = self.orders.get_mut(self.view) {
            order.column = to(order.column, columns.len());
            // Names from A on, numbers from the largest.
            order.ascending = columns.get(order.column).is_some_and(|it| it.kind == table::Kind::Text);
        }
    }

    /// Keeps the selection on a row that there is.
    fn bound(&mut self) {
        let last = self.rows(self.view()).len().saturating_sub(1);
        self.go(|at| at.min(last));
    }
}
