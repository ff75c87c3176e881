"""The pages of what `rules` ran: every rule against random rows, and whether the claims hold."""

from collections import defaultdict

import numpy as np
from scipy.stats import ttest_1samp

from .records import FOLDER, Records
from .report import PAGE
from .rules import CORE, KEYS, NOISES, OTHERS

DATA = {
    "develop": ("digits", "mnist", "cancer", "wine", "fair"),
    "judge": ("cifar", "diamonds"),
}
OURS = ("herding", "coverage", "clean_coverage", "clean_herding")
LEVEL = 0.05


class Cells:
    """Accuracies in percent of one data set and net, by (kind, noise, kept), rule and seed."""

    def __init__(self, rows):
        self.by_cell, self.all_rows = defaultdict(lambda: defaultdict(dict)), defaultdict(dict)
        for row in rows:
            cell, accuracy = (row["kind"], row["noise"], row["kept"]), 100 * row["accuracy"]
            if row["strategy"] == "all":
                self.all_rows[cell[:2]][row["seed"]] = accuracy
            else:
                self.by_cell[cell][row["strategy"]][row["seed"]] = accuracy

    def gains(self, cell, rule, over="random"):
        """Paired differences to another rule, one a seed."""
        found, other = self.by_cell[cell].get(rule, {}), self.by_cell[cell].get(over, {})
        return np.array([found[s] - other[s] for s in sorted(found.keys() & other.keys())])

    def mean(self, cell, rule):
        return np.mean(list(self.by_cell[cell][rule].values()))

    def significant(self):
        """(cell, rule) whose difference to random rows is one after Holm's correction."""
        p = {}
        for cell, rules in self.by_cell.items():
            for rule in rules:
                gains = self.gains(cell, rule)
                if rule != "random" and len(gains) > 1 and gains.std() > 1e-9:
                    p[cell, rule] = ttest_1samp(gains, 0).pvalue
        found = set()
        for k, (key, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
            if value > LEVEL / (len(p) - k):
                break
            found.add(key)
        return found


def error_of(gains):
    """Standard error of the mean; nan for a single one."""
    return gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else np.nan


def table(cells):
    """A block for each kind and share of wrong labels."""
    marked, blocks = cells.significant(), []
    for kind, noise, _ in NOISES:
        kept = sorted(k for a, b, k in cells.by_cell if (a, b) == (kind, noise))
        if not kept:
            continue
        of_all = list(cells.all_rows[kind, noise].values())
        title = f"{noise:.0%} wrong labels, {kind}" if noise else "no wrong labels"
        lines = [f"{title}; all rows: {np.mean(of_all):.1f}; {len(of_all)} draws"]
        lines.append("kept".ljust(18) + "".join(f"{k:>13.0%}" for k in kept))
        random = [cells.mean((kind, noise, k), "random") for k in kept]
        lines.append("random".ljust(18) + "".join(f"{v:13.1f}" for v in random))
        for rule in [r for r in (*CORE, *OTHERS) if r != "random"]:
            texts = [_cell(cells, (kind, noise, k), rule, marked) for k in kept]
            if any(texts):
                lines.append(rule.ljust(18) + "".join(t.rjust(13) for t in texts))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cell(cells, cell, rule, marked):
    gains = cells.gains(cell, rule)
    if not len(gains):
        return ""
    error = f" ({error_of(gains):.1f})" if len(gains) > 1 else ""
    return f"{gains.mean():+.1f}{error}{'*' if (cell, rule) in marked else ' '}"


def claims(cells, rule="clean_herding"):
    """Whether the claims of RULES.md hold for a rule."""
    clean = [c for c in cells.by_cell if c[1] == 0 and c[2] <= 0.7]
    failed = []
    for cell in clean:
        gains = cells.gains(cell, rule)
        if len(gains) and gains.mean() < -0.5 and not gains.mean() >= -error_of(gains):
            failed.append(f"{gains.mean():+.1f} at {cell[2]:.0%}")
    lines = [f"1. not below random without wrong labels: {', '.join(failed) or 'holds'}"]
    for kind in ("uniform", "similar"):
        few = [c for c in cells.by_cell if c[:2] == (kind, 0.2) and c[2] <= 0.2]
        few = [c for c in few if rule in cells.by_cell[c]]
        if few:
            mean = np.mean([cells.gains(c, rule).mean() for c in few])
            lines.append(f"2. above random at 20 % {kind}, 5 to 20 % kept: {mean:+.1f}")
    noisy = [c for c in cells.by_cell if c[1] > 0 and rule in cells.by_cell[c]]
    below = 0
    for cell in noisy:
        controls = [r for r in cells.by_cell[cell] if r not in OURS]
        # the best of them by its mean: of all draws, or where it has fewer, of those
        gains = min((cells.gains(cell, rule, c) for c in controls), key=np.mean)
        below += not gains.mean() >= -np.nan_to_num(error_of(gains))
    lines.append(
        f"3. not below the best control by more than a standard error: {len(noisy) - below} of "
        f"{len(noisy)} cells"
    )
    return "\n".join(lines)


def main():
    for group, names in DATA.items():
        blocks = []
        for name in names:
            path = FOLDER / f"rules_{name}.jsonl"
            rows = Records(path, KEYS).rows if path.exists() else []
            for net in ("default", "own"):
                cells = Cells([row for row in rows if row["net"] == net])
                if cells.by_cell:
                    title = f"{name.upper()}, {net} net"
                    blocks.append(f"{title}\n{'-' * len(title)}\n{claims(cells)}\n\n{table(cells)}")
        (PAGE.parent / f"rules_{group}.txt").write_text("\n\n\n".join(blocks) + "\n")
        print(*blocks, sep="\n\n\n")


if __name__ == "__main__":
    main()
