//! How registers are written to, in many ways.
//! It must never leave a register in a state that depends on what it was, where nobody knows that.

use crate::dice::Dice;
use crate::model::{Kind, Register, State};

/// A write: statements, and what the register is then; `None`: what it was, as it is rolled back.
pub struct Plan {
    pub script: Vec<String>,
    pub state: Option<State>,
    /// Nobody can see what it does: it counts as a change of everything.
    pub blind: bool,
}

impl Plan {
    fn new(script: &[&str], value: &str, shown: bool, right: bool) -> Self {
        let script = script.iter().map(ToString::to_string).collect();
        Self { script, state: Some(State::of(value.into(), shown, right)), blind: false }
    }

    fn block(script: &[&str], value: &str, shown: bool, right: bool) -> Self {
        let script: Vec<&str> = [&["BEGIN"], script, &["COMMIT"]].concat();
        Self::new(&script, value, shown, right)
    }

    fn rolled_back(sql: &str) -> Self {
        Self { script: vec!["BEGIN".into(), sql.into(), "ROLLBACK".into()], state: None, blind: false }
    }

    fn blind(mut self) -> Self {
        self.blind = true;
        self
    }
}

/// The next write; `unsure`: it must not hang on what is there. `value`: one that the register never had.
pub fn plan(register: &Register, value: &str, unsure: bool, dice: &mut Dice) -> Option<Plan> {
    let (group, row) = (register.group, register.row);
    let last = register.last();
    let plan = match register.kind {
        Kind::Plain => plain(group, row, value, unsure || !last.shown, dice),
        Kind::Part => part(group, row, value, (unsure || !last.shown, last.right), dice),
        Kind::Family => family(group, row, value, unsure || !last.shown, dice),
        Kind::Flash => flash(group, value, unsure || !last.shown, dice),
        Kind::Dark => {
            Plan::new(&[&format!("UPDATE dark SET v = '{value}' WHERE id = {row}")], value, true, false).blind()
        }
        Kind::Place | Kind::Vault | Kind::Spot => {
            let table = match (register.kind, group) {
                (Kind::Vault, _) => "public.vault",
                (Kind::Spot, 0) => "a.spot",
                (Kind::Spot, _) => "b.spot",
                (_, 0) => "app.place",
                (_, 1) => return other_place(value),
                _ => "public.place",
            };
            Plan::new(&[&format!("UPDATE {table} SET v = '{value}' WHERE id = {row}")], value, true, false)
        }
        Kind::Own => return None,
        _ => schema(register.kind, value, &last, unsure, dice),
    };
    Some(plan)
}

fn other_place(value: &str) -> Option<Plan> {
    Some(Plan::new(&[&format!("UPDATE other.place SET v = '{value}'")], value, true, false))
}

fn plain(group: usize, row: usize, value: &str, anew: bool, dice: &mut Dice) -> Plan {
    let table = format!("plain{group}");
    let update = format!("UPDATE {table} SET v = '{value}' WHERE id = {row}");
    let upsert = format!("INSERT INTO {table} VALUES ({row}, '{value}') ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v");
    let delete = format!("DELETE FROM {table} WHERE id = {row}");
    if anew {
        return Plan::new(&[&upsert], value, true, false);
    }
    let one = |sql: &str| Plan::new(&[sql], value, true, false);
    match dice.below(16) {
        0 => Plan::block(&[&update], value, true, false),
        1 => one(&format!("BEGIN; {update}; COMMIT")),
        2 => Plan::block(&["SAVEPOINT s", &update, "RELEASE s"], value, true, false),
        3 => one(&upsert),
        4 => one(&format!("WITH w AS ({update} RETURNING v) SELECT * FROM w")),
        5 => one(&format!("SELECT put{group}({row}, '{value}')")),
        6 => one(&format!("DO $$BEGIN {update}; END$$")).blind(),
        7 => one(&format!(
            "MERGE INTO {table} p USING (SELECT {row} AS id) s ON p.id = s.id WHEN MATCHED THEN UPDATE SET v = '{value}'"
        )),
        8 => Plan::new(&[&delete], "", false, false),
        9 => Plan::block(&[&delete, &format!("INSERT INTO {table} VALUES ({row}, '{value}')")], value, true, false),
        10 => Plan::rolled_back(&format!("UPDATE {table} SET v = 'never' WHERE id = {row}")),
        11 => Plan::new(&[&format!("PREPARE w AS {update}"), "EXECUTE w", "DEALLOCATE w"], value, true, false).blind(),
        12 => {
            let name = format!("plain{group}-{row}");
            let (prepare, commit) = (format!("PREPARE TRANSACTION '{name}'"), format!("COMMIT PREPARED '{name}'"));
            Plan::new(&["BEGIN", &update, &prepare, &commit], value, true, false).blind()
        }
        13 => one(&format!("EXPLAIN ANALYZE {update}")),
        _ => one(&update),
    }
}

fn part(group: usize, row: usize, value: &str, (anew, right): (bool, bool), dice: &mut Dice) -> Plan {
    let table = format!("part{group}");
    let (side, there) = (usize::from(right), usize::from(!right));
    let leaf = format!("{table}_{}", if right { "r" } else { "l" });
    let delete = format!("DELETE FROM {table} WHERE id = {row}");
    if anew || dice.chance(10) {
        let insert = format!("INSERT INTO {table}_l VALUES ({row}, 0, '{value}')");
        return Plan::block(&[&delete, &insert], value, true, false);
    }
    match dice.below(6) {
        0 => Plan::new(&[&format!("UPDATE {leaf} SET v = '{value}' WHERE id = {row}")], value, true, right),
        1 => Plan::new(&[&delete], "", false, false),
        2 | 3 => {
            let moved = format!("UPDATE {table} SET side = {there}, v = '{value}' WHERE id = {row}");
            Plan::new(&[&moved], value, true, !right)
        }
        4 => Plan::rolled_back(&format!("UPDATE {table} SET side = {there}, v = 'never' WHERE id = {row}")),
        _ => {
            let update = format!("UPDATE {table} SET v = '{value}' WHERE id = {row} AND side = {side}");
            Plan::new(&[&update], value, true, right)
        }
    }
}

fn family(group: usize, row: usize, value: &str, anew: bool, dice: &mut Dice) -> Plan {
    let delete = format!("DELETE FROM parent{group} WHERE id = {row}");
    if anew || dice.chance(10) {
        let insert = |table: &str| format!("INSERT INTO {table}{group} VALUES ({row}, '{value}')");
        let (parent, child, grand) = (insert("parent"), insert("child"), insert("grand"));
        let pet = format!("UPDATE pet{group} SET code = '{value}' WHERE id = {row}");
        return Plan::block(&[&delete, &parent, &child, &grand, &pet], value, true, false);
    }
    match dice.below(5) {
        0 => Plan::new(&[&delete], "", false, false),
        1 => Plan::rolled_back(&delete),
        _ => {
            let update = format!("UPDATE parent{group} SET code = '{value}' WHERE id = {row}");
            Plan::new(&[&update], value, true, false)
        }
    }
}

fn flash(group: usize, value: &str, anew: bool, dice: &mut Dice) -> Plan {
    let truncate = format!("TRUNCATE flash{group}");
    if anew || dice.chance(40) {
        let insert = format!("INSERT INTO flash{group} VALUES (1, '{value}')");
        return Plan::block(&[&truncate, &insert], value, true, false);
    }
    match dice.below(2) {
        0 => Plan::new(&[&truncate], "", false, false),
        _ => Plan::new(&[&format!("UPDATE flash{group} SET v = '{value}'")], value, true, false),
    }
}

fn schema(kind: Kind, value: &str, last: &State, unsure: bool, dice: &mut Dice) -> Plan {
    let again = unsure || dice.chance(50);
    match kind {
        // Without the column its key is the last one.
        Kind::Shaped if !again => Plan::new(&["ALTER TABLE shaped DROP COLUMN IF EXISTS c"], "1", true, false),
        Kind::Shaped => {
            let alter = format!("ALTER TABLE shaped DROP COLUMN IF EXISTS c, ADD COLUMN c text DEFAULT '{value}'");
            Plan::new(&[&alter], value, true, false)
        }
        Kind::Replaced => {
            let view = format!("CREATE OR REPLACE VIEW public.replaced AS SELECT '{value}'::text AS v FROM anchor");
            Plan::new(&[&view], value, true, false)
        }
        Kind::Fixed => {
            let function = "CREATE OR REPLACE FUNCTION public.fixed(int) RETURNS text LANGUAGE sql IMMUTABLE AS";
            Plan::new(&[&format!("{function} $$SELECT '{value}'::text$$")], value, true, false)
        }
        Kind::Lent => {
            let granted = unsure || !last.shown;
            let change = if granted {
                "GRANT SELECT ON lent TO other, reader"
            } else {
                "REVOKE SELECT ON lent FROM other, reader"
            };
            let update = format!("UPDATE lent SET v = '{value}'");
            Plan::block(&[change, &update], value, granted, false)
        }
        Kind::Detached => {
            let update = format!("UPDATE piece SET v = '{value}'");
            if unsure {
                // Whichever it is: it is one afterwards.
                let detach = "DO $$BEGIN IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = 'piece'::regclass) THEN \
                              ALTER TABLE whole DETACH PARTITION piece; END IF; END$$";
                return Plan::new(&[detach], "", false, false).blind();
            }
            match last.shown {
                true => Plan::new(&["ALTER TABLE whole DETACH PARTITION piece"], "", false, false),
                false => Plan::block(
                    &[&update, "ALTER TABLE whole ATTACH PARTITION piece FOR VALUES IN (0)"],
                    value,
                    true,
                    false,
                ),
            }
        }
        Kind::Swapped => {
            let update = format!("UPDATE swapping SET v = '{value}'");
            let renames = ["swapped RENAME TO passing", "swapping RENAME TO swapped", "passing RENAME TO swapping"];
            let [one, two, three] = renames.map(|rename| format!("ALTER TABLE {rename}"));
            Plan::block(&[&update, &one, &two, &three], value, true, false)
        }
        // `right`: the one behind is seen.
        _ if last.right && !unsure && again => {
            Plan::new(&[&format!("UPDATE public.front SET v = '{value}'")], value, true, true)
        }
        _ if last.right && !unsure => {
            let insert = format!("INSERT INTO a.front VALUES (1, '{value}')");
            let create = "CREATE TABLE a.front (id int PRIMARY KEY, v text)";
            Plan::block(&[create, &insert, "GRANT SELECT ON a.front TO other, reader"], value, true, false)
        }
        _ => {
            let update = format!("UPDATE public.front SET v = '{value}'");
            Plan::block(&[&update, "DROP TABLE IF EXISTS a.front"], value, true, true)
        }
    }
}
