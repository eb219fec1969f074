//! The tables, and the registers that are in them.
//! It must never give two registers the same value, nor one value to two rows of which a read may show either.

use crate::model::{Kind, Register, Writers};

/// How many times there are the tables for rows alone.
pub const GROUPS: usize = 8;

const GROUP: &str = "
CREATE TABLE plain# (id int PRIMARY KEY, v text); CREATE TABLE mirror# (id int PRIMARY KEY, v text);
CREATE FUNCTION reflect#() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  IF TG_OP = 'DELETE' THEN DELETE FROM mirror# WHERE id = OLD.id; RETURN NULL; END IF;
  INSERT INTO mirror# VALUES (NEW.id, NEW.v) ON CONFLICT (id) DO UPDATE SET v = NEW.v; RETURN NULL;
END$$;
CREATE TRIGGER reflect AFTER INSERT OR UPDATE OR DELETE ON plain# FOR EACH ROW EXECUTE FUNCTION reflect#();
CREATE VIEW both# AS SELECT m.id, m.v FROM mirror# m JOIN plain# p ON p.id = m.id AND p.v = m.v;
CREATE FUNCTION looks#(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT v FROM plain# WHERE id = $1';
CREATE FUNCTION put#(int, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN UPDATE plain# SET v = $2 WHERE id = $1; END';
INSERT INTO plain# VALUES (1, 'plain#-1:0'), (2, 'plain#-2:0');
CREATE TABLE part# (id int, side int, v text, PRIMARY KEY (id, side)) PARTITION BY LIST (side);
CREATE TABLE part#_l PARTITION OF part# FOR VALUES IN (0); CREATE TABLE part#_r PARTITION OF part# FOR VALUES IN (1);
INSERT INTO part# VALUES (1, 0, 'part#-1:0'), (2, 0, 'part#-2:0');
CREATE TABLE parent# (id int PRIMARY KEY, code text UNIQUE);
CREATE TABLE child# (id int PRIMARY KEY, code text UNIQUE REFERENCES parent# (code) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE grand# (id int PRIMARY KEY, code text REFERENCES child# (code) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE pet# (id int PRIMARY KEY, code text REFERENCES parent# (code) ON UPDATE CASCADE ON DELETE SET NULL);
INSERT INTO parent# VALUES (1, 'family#-1:0'), (2, 'family#-2:0'); INSERT INTO child# TABLE parent#; INSERT INTO grand# TABLE parent#;
INSERT INTO pet# TABLE parent#;
CREATE TABLE flash# (id int PRIMARY KEY, v text); INSERT INTO flash# VALUES (1, 'flash#-1:0');";

const SINGLE: &str = "
CREATE TABLE dark (id int PRIMARY KEY, v text); CREATE TABLE dim (id int PRIMARY KEY, v text);
CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  EXECUTE format('UPDATE %I SET v = $1 WHERE id = $2', TG_ARGV[0]) USING NEW.v, NEW.id; RETURN NULL;
END$$;
INSERT INTO dark VALUES (1, 'dark0-1:0'), (2, 'dark0-2:0'); INSERT INTO dim TABLE dark;
CREATE TRIGGER hide AFTER UPDATE ON dark FOR EACH ROW EXECUTE FUNCTION hide('dim');
CREATE TABLE shaped (id int PRIMARY KEY, c text DEFAULT 'shaped0-1:0'); INSERT INTO shaped VALUES (1);
CREATE TABLE anchor (id int PRIMARY KEY); INSERT INTO anchor VALUES (1);
CREATE VIEW replaced AS SELECT 'replaced0-1:0'::text AS v FROM anchor;
CREATE FUNCTION fixed(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'fixed0-1:0'::text$$;
CREATE TABLE lent (id int PRIMARY KEY, v text); INSERT INTO lent VALUES (1, 'lent0-1:0');
CREATE TABLE whole (id int, side int, v text, PRIMARY KEY (id, side)) PARTITION BY LIST (side);
CREATE TABLE piece PARTITION OF whole FOR VALUES IN (0); INSERT INTO whole VALUES (1, 0, 'detached0-1:0');
CREATE TABLE swapped (id int PRIMARY KEY, v text); INSERT INTO swapped VALUES (1, 'swapped0-1:0');
CREATE TABLE swapping (id int PRIMARY KEY, v text); INSERT INTO swapping VALUES (1, 'nobody''s');
CREATE TABLE front (id int PRIMARY KEY, v text); INSERT INTO front VALUES (1, 'nobody''s');
CREATE TABLE vault (id int PRIMARY KEY, v text); INSERT INTO vault VALUES (1, 'vault0-1:0');
CREATE TABLE own (owner text PRIMARY KEY, v text);
INSERT INTO own VALUES ('app', 'own-app:0'), ('other', 'own-other:0'), ('reader', 'own-reader:0');
ALTER TABLE own ENABLE ROW LEVEL SECURITY; ALTER TABLE own FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON own USING (owner = current_user);
CREATE VIEW owned WITH (security_invoker = true) AS SELECT * FROM own;
CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA app; CREATE SCHEMA other;
CREATE TABLE a.spot (id int PRIMARY KEY, v text); CREATE TABLE b.spot (id int PRIMARY KEY, v text);
INSERT INTO a.spot VALUES (1, 'spota-1:0'), (2, 'spota-2:0'); INSERT INTO b.spot VALUES (1, 'spotb-1:0'), (2, 'spotb-2:0');
CREATE TABLE a.front (id int PRIMARY KEY, v text); INSERT INTO a.front VALUES (1, 'front0-1:0');
CREATE TABLE app.place (id int PRIMARY KEY, v text); INSERT INTO app.place VALUES (1, 'place-app:0');
CREATE TABLE other.place (id int PRIMARY KEY, v text); INSERT INTO other.place VALUES (1, 'place-other:0');
CREATE TABLE public.place (id int PRIMARY KEY, v text); INSERT INTO public.place VALUES (1, 'place-public:0');
GRANT USAGE ON SCHEMA a, b, app, other TO other, reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public, a, b, app, other TO other, reader; REVOKE ALL ON vault FROM other, reader;";

/// Makes all of that, owned by the role `app`, who may become `reader`; `other` may not.
pub fn sql() -> String {
    let groups: String = (0..GROUPS).map(|group| GROUP.replace('#', &group.to_string())).collect();
    format!(
        "CREATE ROLE other LOGIN; CREATE ROLE reader NOLOGIN; GRANT reader TO app; GRANT CREATE ON DATABASE app TO app; \
         SET ROLE app; {groups} {SINGLE} RESET ROLE"
    )
}

/// Whose rows of [`Kind::Own`] and [`Kind::Place`] there are.
pub const WHOSE: [&str; 3] = ["app", "other", "reader"];

/// All registers. `apart`: what is written through pgweir is not written past it as well.
pub fn registers(apart: bool) -> Vec<Register> {
    let writers = |past: bool| match (apart, past) {
        (false, _) => Writers::Any,
        (true, true) => Writers::Past,
        (true, false) => Writers::Through,
    };
    let mut all = Vec::new();
    for group in 0..GROUPS {
        for (kind, name) in [(Kind::Plain, "plain"), (Kind::Part, "part"), (Kind::Family, "family")] {
            for row in [1, 2] {
                all.push(Register::new(&format!("{name}{group}-{row}"), kind, (group, row), writers(row == 2)));
            }
        }
        let past = !group.is_multiple_of(2);
        all.push(Register::new(&format!("flash{group}-1"), Kind::Flash, (group, 1), writers(past)));
    }
    for (group, schema) in ["a", "b"].into_iter().enumerate() {
        for row in [1, 2] {
            all.push(Register::new(&format!("spot{schema}-{row}"), Kind::Spot, (group, row), writers(row == 2)));
        }
    }
    for (group, whose) in WHOSE.into_iter().enumerate() {
        all.push(Register::new(&format!("own-{whose}"), Kind::Own, (group, 1), writers(false)));
        // The reader has no schema of his own.
        let whose = whose.replace("reader", "public");
        all.push(Register::new(&format!("place-{whose}"), Kind::Place, (group, 1), writers(group == 1)));
    }
    for row in [1, 2] {
        all.push(Register::new(&format!("dark0-{row}"), Kind::Dark, (0, row), writers(row == 2)));
    }
    for (kind, name) in [
        (Kind::Vault, "vault"),
        (Kind::Shaped, "shaped"),
        (Kind::Replaced, "replaced"),
        (Kind::Fixed, "fixed"),
        (Kind::Lent, "lent"),
        (Kind::Detached, "detached"),
        (Kind::Swapped, "swapped"),
        (Kind::Front, "front"),
    ] {
        all.push(Register::new(&format!("{name}0-1"), kind, (0, 1), writers(false)));
    }
    all
}
