//! How `pgweir top` looks: on a terminal, and as plain text.
//! Must never say anything by colour alone.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell as Square, Paragraph, Row, Table, TableState, Wrap};
use serde_json::Value;

use super::state::State;
use super::table::{Cell, Column, Kind, VIEWS, View, clean, fitting};

/// What the keys do.
pub(super) const HELP: &str = "\
Tab, 1, 2, 3      pools, queries, replicas
Up, Down, k, j    select a row; PageUp, PageDown, Home, End
< > o             sort by the column before, after
r                 sort the other way round
/                 filter by a text; Enter keeps it, Esc clears it
p                 pause: ask for nothing new
q, Ctrl-C         leave
? h               this page; any key closes it

RATES are since the values before, all else since the start of pgweir or of the pool.";

const KEYS: &str = "Tab 1 2 3 table  < > sort  r reverse  / filter  p pause  ? help  q quit";

fn number(value: &Value, at: &str) -> f64 {
    value.pointer(at).and_then(Value::as_f64).unwrap_or(0.0)
}

/// The lines above the tables.
pub(super) fn head(state: &State) -> [String; 2] {
    let Some(it) = state.answers() else { return [format!("pgweir top  {}", state.target), String::new()] };
    let sum = |at: &str| -> f64 {
        let databases = it.databases.get("databases").and_then(Value::as_array);
        databases.map_or(0.0, |all| all.iter().map(|one| number(one, at)).sum())
    };
    let ready = it.status.get("ready").and_then(Value::as_bool).unwrap_or_default();
    let version = it.status.pointer("/process/version").and_then(Value::as_str).unwrap_or("?");
    let uptime_s = number(&it.status, "/process/uptime_seconds") as u64;
    let up = match uptime_s {
        ..60 => format!("{uptime_s} s"),
        60..3600 => format!("{} min", uptime_s / 60),
        3600..86_400 => format!("{} h {} min", uptime_s / 3600, uptime_s / 60 % 60),
        _ => format!("{} d {} h", uptime_s / 86_400, uptime_s / 3600 % 24),
    };
    let first = format!(
        "pgweir {}  {}  up {up}  {}  health {}  alerts firing {}",
        clean(version),
        state.target,
        if ready { "ready" } else { "NOT READY" },
        number(&it.status, "/health/score"),
        number(&it.alerts, "/firing"),
    );
    let second = format!(
        "tps {}  clients {} ({} active, {} waiting)  servers {} ({} active, {} opening)",
        state.tps().map_or_else(|| "–".to_owned(), |tps| format!("{tps:.1}")),
        sum("/clients/active") + sum("/clients/waiting") + sum("/clients/idle"),
        sum("/clients/active"),
        sum("/clients/waiting"),
        sum("/servers/active") + sum("/servers/idle"),
        sum("/servers/active"),
        sum("/servers/connecting"),
    );
    [first, second]
}

/// What is the matter, if anything is.
fn trouble(state: &State, now: Instant) -> Option<String> {
    let age = state.age(now).map(|age| format!("values are {} s old", age.as_secs()));
    match (&state.error, age) {
        (Some(error), Some(age)) => Some(format!("OLD, {age}: {error}; trying again")),
        (Some(error), None) => Some(format!("{error}; trying again")),
        (None, Some(age)) => Some(format!("PAUSED, {age}: p goes on")),
        (None, None) if state.answers().is_none() => Some("asking …".to_owned()),
        (None, None) => None,
    }
}

fn tabs(state: &State) -> String {
    let view = state.view();
    let tab = |(at, it): (usize, &View)| match *it == view {
        true => format!("[{} {}]", at + 1, it.title()),
        false => format!(" {} {} ", at + 1, it.title()),
    };
    let tabs: String = VIEWS.iter().enumerate().map(tab).collect();
    let filter = match state.filter.is_empty() && !state.is_typing {
        true => String::new(),
        false => format!("  filter: {}{}", state.filter, if state.is_typing { "_" } else { "" }),
    };
    format!("{tabs}{filter}")
}

/// A title, with where it is sorted to if it is sorted by that.
fn title(state: &State, view: View, at: usize, column: &Column) -> String {
    let order = state.order(view);
    let mark = match (order.column == at, order.ascending) {
        (false, _) => "",
        (true, true) => "^",
        (true, false) => "v",
    };
    format!("{}{mark}", column.title)
}

/// Draws the page; `with_color`: colours may be used.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, now: Instant, with_color: bool) {
    let alarm = match with_color {
        true => Style::new().fg(Color::Red),
        false => Style::new().add_modifier(Modifier::BOLD),
    };
    let trouble = trouble(state, now);
    let lines = if trouble.is_some() { 2 } else { 0 };
    let parts = [2, lines, 1].map(Constraint::Length).into_iter().chain([Constraint::Min(1), Constraint::Length(1)]);
    let [top, wrong, bar, body, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(head(state).map(Line::from).to_vec()), top);
    if let Some(trouble) = trouble {
        frame.render_widget(Paragraph::new(trouble).style(alarm).wrap(Wrap { trim: true }), wrong);
    }
    frame.render_widget(Paragraph::new(tabs(state)).style(Style::new().add_modifier(Modifier::BOLD)), bar);
    match state.is_help {
        true => frame.render_widget(Paragraph::new(HELP), body),
        false => rows(frame, state, body, alarm),
    }
    frame.render_widget(Paragraph::new(KEYS), foot);
}

fn rows(frame: &mut Frame<'_>, state: &State, area: Rect, alarm: Style) {
    let view = state.view();
    let columns = view.columns();
    let shown: Vec<(usize, &Column)> =
        fitting(columns, area.width).into_iter().filter_map(|at| Some((at, columns.get(at)?))).collect();
    let square = |text: String, column: &Column| {
        let text = Text::from(text);
        Square::from(if column.kind == Kind::Text { text } else { text.right_aligned() })
    };
    let names = shown.iter().map(|(at, column)| square(title(state, view, *at, column), column));
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD));
    let all = state.rows(view);
    let row = |cells: &Vec<Cell>| {
        Row::new(shown.iter().filter_map(|(at, column)| {
            let cell = cells.get(*at)?;
            let style = if cell.is_alarming(column) { alarm } else { Style::new() };
            Some(square(cell.shown(column.kind), column).style(style))
        }))
    };
    // The last text takes what is left.
    let wide = shown.iter().rposition(|(_, column)| column.kind == Kind::Text);
    let widths = shown.iter().enumerate().map(|(at, (_, column))| match Some(at) == wide {
        true => Constraint::Fill(1),
        false => Constraint::Length(column.width),
    });
    let table = Table::new(all.iter().map(row), widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut at = TableState::new().with_selected((!all.is_empty()).then(|| state.selected()));
    frame.render_stateful_widget(table, area, &mut at);
}

/// Everything as text, for scripts: the head, then each table.
pub(super) fn plain(state: &State) -> String {
    let mut text = head(state).join("\n");
    text.push('\n');
    for view in VIEWS {
        let columns = view.columns();
        let names: Vec<String> = columns.iter().enumerate().map(|(at, it)| title(state, view, at, it)).collect();
        let cells = |row: &Vec<Cell>| row.iter().zip(columns).map(|(cell, it)| cell.shown(it.kind)).collect();
        let lines: Vec<Vec<String>> = [names].into_iter().chain(state.rows(view).iter().map(cells)).collect();
        let length = |line: &Vec<String>, at: usize| line.get(at).map_or(0, |it| it.chars().count());
        text.push_str(&format!("\n{}\n", view.title()));
        for line in &lines {
            let padded = line.iter().zip(columns).enumerate().map(|(at, (cell, column))| {
                let width = lines.iter().map(|it| length(it, at)).max().unwrap_or(0);
                if column.kind == Kind::Text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let padded: Vec<String> = padded.collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
    }
    text
}
