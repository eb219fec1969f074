"""Which tests of a suite are run, in which groups and order, for integration/suites.py.

It must never leave out a test that another one needs.
"""
import re
import sys
from collections import Counter
from dataclasses import dataclass, field

# What makes a test worth its time in the third: state that outlives a transaction, and what else a pooler must not confuse.
STATE = [
    r"^\s*SET\s+(?!LOCAL|CONSTRAINTS|ROLE|SESSION)", r"\bSET\s+(LOCAL\s+|SESSION\s+)?ROLE\b",
    r"\bSET\s+(LOCAL\s+)?SESSION\s+AUTHORIZATION\b", r"SESSION\s+CHARACTERISTICS", r"\bSET\s+LOCAL\b", r"\bRESET\s+\w",
    r"\bset_config\s*\(", r"\b(CREATE|INTO)\s.*\bTEMP", r"\bpg_temp\b", r"^\s*PREPARE\s+(?!TRANSACTION)",
    r"\bPREPARE\s+TRANSACTION\b", r"\bWITH\s+HOLD\b", r"\bDECLARE\s.*\bCURSOR\b", r"\bLISTEN\s", r"\bNOTIFY\s",
    r"advisory_(un)?lock", r"\b(curr|last)val\s*\(", r"\bnextval\s*\(", r"^\s*DISCARD\s", r"^\s*LOAD\s", r"\blo_open\b",
    r"\bpg_backend_pid\b", r"\bpg_stat_activity\b", r"\bSAVEPOINT\b", r"^\s*DO\s", r"\bLANGUAGE\s+'?C\b", r"^\\c(onnect)?\b",
    r"^COPY\b.*\bSTD(IN|OUT)\b", r"\\;", r"\b(CREATE|DROP|ALTER)\s+DATABASE\b", r"^\s*VACUUM\b", r"\bDateStyle\b",
    r"\bTime\s*Zone\b",
]


@dataclass
class Schedule:
    """The tests in their groups, in the suite's order, those whose failure it ignores, and what each depends on."""
    groups: list = field(default_factory=list)
    ignored: set = field(default_factory=set)
    depends: dict = field(default_factory=dict)

    @classmethod
    def read(cls, file):
        schedule = cls()
        comment = ""
        for line in file.read_text().splitlines():
            if line.startswith("#"):
                # Dependencies are said in comments only: "horology depends on date, time and timetz".
                starts = re.match(r"#\s*\w[\w.]* depends on ", line)
                comment = line[1:] if starts else comment + line[1:]
                if match := re.match(r"\s*(\S+) depends on ([\w.]+(?:(?:,\s*(?:and\s)?|\s+and\s)\s*[\w.]+)*)", comment):
                    schedule.depends[match[1]] = [word for word in re.findall(r"[\w.]+", match[2]) if word != "and"]
                continue
            comment = ""
            if line.startswith("test:"):
                schedule.groups.append(line[5:].split())
            elif line.startswith("ignore:"):
                schedule.ignored |= set(line[7:].split())
        return schedule

    def names(self):
        return [name for group in self.groups for name in group]

    def with_needed(self, wanted):
        """These tests and those that must run before them."""
        order = self.names()
        if unknown := [name for name in wanted if name not in order]:
            sys.exit(f"integration/regress: not in the schedule: {' '.join(unknown)}")
        chosen, open_ends = set(), list(wanted)
        while open_ends:
            name = open_ends.pop()
            if name in chosen:
                continue
            chosen.add(name)
            open_ends += [other for other in self.depends.get(name, []) if other in order]
            # "Most test scripts can be run after running just test_setup and possibly create_index."
            open_ends += [other for other in ("test_setup", "create_index") if other in order and order.index(other) < order.index(name)]
        return chosen

    def only(self, chosen):
        kept = [[name for name in group if name in chosen] for group in self.groups]
        return Schedule([group for group in kept if group], self.ignored & chosen, self.depends)

    def text(self):
        return "".join(f"ignore: {name}\n" for name in sorted(self.ignored)) + "".join(f"test: {' '.join(g)}\n" for g in self.groups)


def third(schedule, suite):
    """The third of the tests that has the most kinds of state in it, a kind counting the more the rarer it is; and what they depend on."""
    kinds = {}
    for name in schedule.names():
        files = [suite / "sql" / f"{name}.sql", suite / "specs" / f"{name}.spec"]
        text = "".join(file.read_text(errors="replace") for file in files if file.exists())
        kinds[name] = {pattern for pattern in STATE if re.search(pattern, text, re.I | re.M)}
    common = Counter(pattern for each in kinds.values() for pattern in each)
    chosen = set()
    for name in sorted(kinds, key=lambda name: -sum(1 / common[pattern] for pattern in sorted(kinds[name]))):
        more = chosen | schedule.with_needed([name])
        if len(more) <= len(kinds) / 3:
            chosen = more
    return chosen


# Of src/test/isolation: who waits for whom, roles, notifications, temporary state, timeouts, several sessions in one lock.
QUICK = """
    deadlock-simple deadlock-soft deadlock-parallel simple-write-skew temporal-range-integrity fk-contention fk-deadlock lock-update-delete
    lock-update-traversal inherit-temp insert-conflict-do-nothing insert-conflict-do-update-2 tuplelock-conflict tuplelock-update
    freeze-the-dead nowait nowait-2 nowait-3 nowait-4 nowait-5 skip-locked skip-locked-2 skip-locked-3 skip-locked-4
    drop-index-concurrently-1 multiple-cic alter-table-4 sequence-ddl async-notify vacuum-concurrent-drop vacuum-conflict
    vacuum-skip-locked truncate-conflict cluster-conflict cluster-conflict-partition timeouts plpgsql-toast
    reindex-schema ri-trigger delete-abort-savept aborted-keyrevoke prepared-transactions-cic
""".split()


def quick(schedule):
    """Those of src/test/isolation that CI runs."""
    return {name for name in schedule.names() if name in QUICK}
